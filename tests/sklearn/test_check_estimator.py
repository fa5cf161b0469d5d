"""scikit-learn's own checks of estimators."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from mlefw.sklearn import EXPECTED_FAILED_CHECKS, LikelihoodClassifier, LikelihoodRegressor

pytestmark = pytest.mark.filterwarnings("default")

ESTIMATORS = [LikelihoodRegressor(), LikelihoodClassifier()]

QUICK = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimators_unfitted",
    "check_mixin_order",
    "check_complex_data",
    "check_estimator_sparse_tag",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_supervised_y_no_nan",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_requires_y_none",
    "check_all_zero_sample_weights_error",
)
"""Checks that train nothing, or little."""


def quick() -> list[Any]:
    found = [(one, check) for given in ESTIMATORS for one, check in estimator_checks_generator(given)]
    return [
        pytest.param(one, check, id=f"{type(one).__name__}-{check.func.__name__}")
        for one, check in found
        if check.func.__name__ in QUICK
    ]


@pytest.mark.parametrize(("estimator", "check"), quick())
def test_a_check_that_takes_no_time(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS)
def test_every_check(estimator: Any, check: Any) -> None:
    check(estimator)

"""Estimators for scikit-learn: `from mlefw.sklearn import LikelihoodClassifier, LikelihoodRegressor`."""

from mlefw.sklearn.classifier import LikelihoodClassifier
from mlefw.sklearn.estimator import EXPECTED_FAILED_CHECKS
from mlefw.sklearn.regressor import LikelihoodRegressor

__all__ = ["EXPECTED_FAILED_CHECKS", "LikelihoodClassifier", "LikelihoodRegressor"]

"""`Estimand`, what a run estimates, and the features of the linear problem beside it."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from mlefw.baseline.arrays import ArrayFeatures, as_columns
from mlefw.baseline.base import Solution
from mlefw.baseline.feature_map import AUTO
from mlefw.baseline.problem import Problem
from mlefw.baseline.quadratic import RandomBlock
from mlefw.baseline.refit import last_layer_problem
from mlefw.baseline.work import MAX_WORK
from mlefw.configuration.settings import Settings
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.tensor_inputs import row_statistics
from mlefw.schema.kinds import RowSchema
from mlefw.schema.schema import Schema


@dataclass(frozen=True)
class Estimand:
    """What is estimated: the objective of the run, its null model, and the linear problem beside it.

    Attributes:
        objective: what training descends.
        null: the exact estimate of the intercept-only model.
        mean: means of the features, (num_features,), in 64 bit.
        scale: standard deviations of the features, (num_features,), in 64 bit.
        baseline_features: positions of the features that take part in the linear problem.
        shape: the shape of a row.
        arrays: the features of the linear problem of rows of arrays; None for tables.
        token_bytes: bytes of text of each token, (num_tokens,); None where rows hold none, or it is not known.
        used: which features and intercepts each column of eta has, (eta_dim, num_features + 1); None for all.
        blocks_of_terms: the coefficients of smooth terms and effects of groups.
    """

    objective: Objective
    null: Solution
    mean: torch.Tensor
    scale: torch.Tensor
    baseline_features: list[int]
    shape: RowShape
    arrays: ArrayFeatures | None = None
    token_bytes: np.ndarray | None = None
    used: torch.Tensor | None = None
    blocks_of_terms: tuple[RandomBlock, ...] = ()

    @property
    def is_subset(self) -> bool:
        """Whether the linear problem has fewer features than the network."""
        return len(self.baseline_features) < len(self.mean)

    def problem(self, train: Rows, prior: Prior, setting: str | None = None) -> Problem:
        """The linear problem with the head of the run, on the training rows with standardised features.

        Args:
            train: the training rows.
            prior: the prior of the weights.
            setting: of arrays, features in place of those that `baseline.features` asks for.

        Raises:
            LeftOutError: rows are no rows of a table, and there is no linear problem of them.
        """
        if self.arrays is not None and self.arrays.is_of_network:
            return last_layer_problem(self.objective, train, prior)
        if self.arrays is not None:
            return self.arrays.problem(self.objective.head, train, self.mean, self.scale, prior, setting)
        problem = Problem.of(self.objective.head, train, self.mean, self.scale, prior, used=self.used)
        problem = replace(problem, blocks_of_terms=self.blocks_of_terms)
        return problem.restricted(torch.tensor(self.baseline_features, dtype=torch.long)) if self.is_subset else problem

    def named(self, solution: Solution, names: list[str]) -> tuple[list[str], list[int]]:
        """Names of the columns of an estimate, given those of the inputs of a row, and positions of those asked for."""
        features = solution.problem.features
        if features is None or features.is_whole:
            return names, self.baseline_features
        count = solution.problem.rows.x.shape[1]
        return features.names(names, count), list(range(count))

    def statistics(self, train: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and standard deviations of the features in the training rows, whatever the settings say."""
        mean, scale = row_statistics(train, self.shape, True)
        return as_columns(mean, self.shape), as_columns(scale, self.shape)


def baseline_features(config: Settings, schema: RowSchema) -> tuple[list[int], str | None]:
    """Positions of the features of the linear problem of a table; and for arrays the setting that says which.

    Raises:
        UsageError: names of columns for arrays, a feature map for a table, or a name that is not a feature.
    """
    asked = config.baseline.get("features")
    if schema.row_shape.is_table:
        if isinstance(asked, str) and asked != AUTO:
            raise UsageError(f"baseline.features={asked} is for arrays: expected null, or a list of columns")
        return schema.columns_of(None if asked == AUTO else asked, "baseline.features"), None
    if schema.row_shape.is_sequential and asked not in (None, AUTO):
        raise UsageError(
            f"baseline.features={asked} is for a linear model: expected null with a text or pixels, whose exact "
            "estimates are tables"
        )
    if asked is not None and not isinstance(asked, str):
        raise UsageError(
            f"baseline.features={asked} names columns of a table, and rows hold {schema.row_shape}: expected auto, "
            "pixels, last_layer, or a number of principal components such as pca:50"
        )
    return schema.columns_of(None, "baseline.features"), asked or AUTO


def array_features(config: Settings, schema: RowSchema, scale: torch.Tensor) -> ArrayFeatures | None:
    """The features of the linear problem of rows of arrays; None for tables.

    `scale` is the standard deviation of each input as the model is given it, (num_features,).
    """
    _, setting = baseline_features(config, schema)
    if setting is None:
        return None
    return ArrayFeatures(schema.row_shape, setting, scale, config.baseline.get("max_work", MAX_WORK))


def random_blocks(schema: RowSchema, head: Head) -> tuple[RandomBlock, ...]:
    """The coefficients of smooth terms and effects of groups, by column of eta.

    Raises:
        UsageError: all columns of eta share one formula, and there are several.
    """
    if not isinstance(schema, Schema) or schema.design is None:
        return ()
    found = schema.design.penalised(len(schema.plain_names))
    if found and len(schema.design.parameters) != head.eta_dim:
        raise UsageError(
            f"{found[0][1].label}: {type(head).__name__} has {head.eta_dim} columns of eta, of which several have this "
            "formula; smooth terms and effects of groups are for one target, and heads with named parameters"
        )
    return tuple(RandomBlock(term.label, head.eta_names[k], k, tuple(at), term.effects) for k, term, at in found)

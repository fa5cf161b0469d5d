"""Builds the network of a run: the model of the settings with what its constructor asks of the rows."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from mlefw.augment.base import Augment
from mlefw.configuration.admission import admit
from mlefw.configuration.instantiate import class_of, instantiate, make
from mlefw.configuration.settings import Node, Settings
from mlefw.distributed import topology
from mlefw.errors import UsageError
from mlefw.inputs.base import Inputs, learn
from mlefw.model.linear import Linear
from mlefw.objective.linear_terms import TermsModel, network_features
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.standardize import Standardized
from mlefw.rows.tensor_inputs import StandardizedChannels, Tokens
from mlefw.system.random_state import RandomStream

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_MEANING = {
    "input_shape": "the shape of x of a row",
    "positions": "the shape of the targets of a row",
    "num_features": "the number of features of a row",
    "num_tokens": "the number of distinct tokens",
    "length": "the number of tokens of a row",
    "eta_dim": "the number of columns of eta",
}
"""What a constructor may name, and what it then gets."""


def build_model(node: Node, shape: RowShape, eta_dim: int) -> nn.Module:
    """The model of the settings, which gets those facts about the rows that its constructor names.

    These are `input_shape`, `positions`, `num_features`, `num_tokens`, `length` and `eta_dim`. Only rows of tokens have
    `num_tokens` and `length`; for others these two keep their settings.

    Raises:
        UsageError: the model asks for what the rows do not have, cannot take tokens, or refuses its settings.
    """
    part = admit("model", node)
    facts = {name: getattr(shape, name, eta_dim) for name in _MEANING}
    _check(part.target, constructor(node), {**part.settings}, facts, shape)
    model: nn.Module = make(part, **{name: fact for name, fact in facts.items() if fact is not None})
    return model


def owned_columns(config: Settings, used: Tensor | None) -> tuple[int, ...]:
    """The columns of eta that the network gives where formulas give others; none for model=linear.

    They are those of parameters without a formula. If each has one, it is the first parameter: its formula then says
    which columns the network sees, and the exact linear estimate beside the run is of that formula.
    """
    if used is None or class_of(admit("model", config.model)) is Linear:
        return ()
    terms = list((config.data.get("terms") or {}).values())
    if len(terms) == 1:
        return tuple(range(len(used)))
    own = tuple(k for k, text in enumerate(terms) if text is None) or (0,)
    # The parameters of each of several targets have the same formulas.
    return tuple(k for k in range(len(used)) if k % len(terms) in own)


def build_network(
    config: Settings,
    shape: RowShape,
    eta_dim: int,
    used: Tensor | None,
    learn_map: Callable[[Inputs, Tensor | None], None],
    is_penalised: bool = False,
) -> tuple[nn.Module, Inputs | None]:
    """The model of the settings, and the map before it; with formulas their linear terms beside the model.

    Args:
        config: the settings of the run.
        shape: the shape of a row.
        eta_dim: number of columns of eta.
        used: which features and intercepts each column of eta has; None without formulas.
        learn_map: gives the map its state; gets the positions of its features, None for all.
        is_penalised: whether there are smooth terms or effects of groups.
    """
    owned = owned_columns(config, used)
    if used is not None and not owned:
        return TermsModel(used, is_penalised=is_penalised), None
    at = None if used is None else network_features(used, owned)
    part = shape if at is None else RowShape((len(at),))
    inputs = build_inputs(config, part)
    if inputs is not None:
        learn_map(inputs, at)
    part = part if inputs is None else part.with_inputs(inputs.num_inputs)
    with RandomStream(config.seed, "initial weights"):
        model = build_model(config.model, part, eta_dim if used is None else len(owned))
    if used is None:
        return model, inputs
    return TermsModel(used, model, owned, inputs, is_penalised), None


def build_inputs(config: Settings, shape: RowShape) -> Inputs | None:
    """The map of standardised features to the inputs of the model, not learnt yet; None for `inputs=standard`.

    For `inputs=auto` it is the first candidate: what only checks or prepares works with any of them. Rows that are no
    rows of a table have none: the map that models of tables have by default is left out.

    Raises:
        UsageError: another map than that is asked for, for such rows.
    """
    num_features = shape.num_features
    if not shape.is_table:
        if config.candidates or config.choice("inputs") not in ("standard", "clipped"):
            raise UsageError(f"inputs={config.choice('inputs')} is for columns of a table: expected inputs=standard")
        return None
    with RandomStream(config.seed, "input map"):
        node = next(iter(config.candidates.values()), config.inputs)
        return instantiate("inputs", node, num_features=num_features) if "_target_" in node else None


def learn_inputs(inputs: Inputs, train: Rows, mean: Tensor, scale: Tensor, at: Tensor | None) -> None:
    """Learn a map of inputs from the training rows, of the features at some positions only, by default of all."""
    if at is None:
        learn(inputs, train, mean, scale)
    else:
        learn(inputs, train._replace(x=train.x[:, at]), mean[at], scale[at])


def check_batch_norm(config: Settings, model: nn.Module) -> None:
    """Refuse batch normalisation where a batch is computed in parts, each of which would be normalised by itself.

    Raises:
        UsageError: naming the layer.
    """
    layer = next((type(one).__name__ for one in model.modules() if isinstance(one, _BATCH_NORMS)), None)
    parts = {
        f"batch.max_rows={config.batch.get('max_rows')}": bool(config.batch.get("max_rows")),
        f"trainer.devices={config.trainer.node.get('devices')}": topology.is_shared(config.trainer),
    }
    for setting, is_set in parts.items():
        if layer is not None and is_set:
            raise UsageError(
                f"{setting} computes each batch in parts, and {layer} would normalise each part by itself"
                "\n  expected: another normalisation, such as GroupNorm or LayerNorm, or whole batches in one process"
            )


def build_augment(node: Node, shape: RowShape) -> Augment | None:
    """The random change of rows in training steps; None for `augment=none`.

    Raises:
        UsageError: it is not for rows of this shape, or holds a state, which no checkpoint keeps.
    """
    if "_target_" not in node:
        return None
    augment: Augment = instantiate("augment", node)
    augment.check(shape.input_shape, shape.positions)
    if shape.is_table or shape.num_tokens is not None:
        raise UsageError(f"augment._target_={node['_target_']}: rows hold {shape}: expected augment=none")
    if state := next(iter(augment.state_dict()), None):
        raise UsageError(f"augment._target_={node['_target_']} holds {state!r}: expected no parameters and buffers")
    return augment


def surrounded(
    model: nn.Module,
    node: Node,
    shape: RowShape,
    mean: Tensor,
    scale: Tensor,
    inputs: Inputs | None = None,
    augment: Augment | None = None,
) -> nn.Module:
    """A model with the layer before it that turns rows, as their source has them, into what it takes.

    Args:
        model: the model.
        node: its settings.
        shape: the shape of a row.
        mean: means of columns or channels, as `row_statistics` finds them.
        scale: their standard deviations.
        inputs: the input map of a table; None for none.
        augment: the random change of rows in training steps; None for none.
    """
    if shape.num_tokens is not None:
        return Tokens(model, shape)
    if shape.is_table:
        return Standardized(model, mean, scale, inputs)
    return StandardizedChannels(model, mean, scale, shape, takes_flat_rows(node, shape), augment)


def takes_flat_rows(node: Node, shape: RowShape) -> bool:
    """Whether each row reaches the model as a vector: the model names num_features, and not the shape of the input."""
    return shape.num_tokens is None and "num_features" in (names := constructor(node)) and "input_shape" not in names


def constructor(node: Node) -> Mapping[str, inspect.Parameter]:
    """The parameters of the class of a model."""
    return inspect.signature(class_of(admit("model", node))).parameters


def _check(
    target: str, known: Mapping[str, inspect.Parameter], settings: Node, facts: dict[str, Any], shape: RowShape
) -> None:
    if shape.num_tokens is not None and "num_tokens" not in known:
        raise UsageError(
            f"model._target_={target}: rows hold {shape}, and it takes numbers: "
            "expected a model whose constructor names num_tokens, such as model=transformer or linear"
        )
    for name, parameter in known.items():
        lacks = name in facts and facts[name] is None and parameter.default is parameter.empty
        if lacks and name not in settings:
            raise UsageError(
                f"model._target_={target} asks for {name}, {_MEANING[name]}, and rows hold {shape}: "
                "expected tokens (data=text), or model=cnn for images and model=mlp for tables"
            )

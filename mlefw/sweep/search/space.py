"""The settings that a search varies: Hydra's sweeps as distributions of Optuna."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from mlefw.errors import UsageError


@dataclass(frozen=True)
class Space:
    """Fixed overrides, and the distributions of the others.

    Attributes:
        fixed: overrides that all trials share.
        distributions: distributions of Optuna by setting; those of `choice(…)` and comma lists are over texts.
        keys: of each setting as an override has it, such as `++model.dropout`.
    """

    fixed: Sequence[str]
    distributions: Mapping[str, Any]
    keys: Mapping[str, str]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> "Space":
        """The space that overrides describe.

        Raises:
            UsageError: an override cannot be read, or a sweep has no values.
        """
        try:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
        except HydraException as error:
            raise UsageError(str(error).splitlines()[0]) from error
        fixed = [text for text, item in zip(overrides, parsed, strict=True) if not item.is_sweep_override()]
        swept = {item.get_key_element().lstrip("+"): item for item in parsed if item.is_sweep_override()}
        for name in swept:
            if name.startswith("hydra"):
                raise UsageError(f"{name}: expected one value, which is that of the whole search")
        if not swept:
            raise UsageError(
                "hydra/sweeper=search: no setting varies; expected some such as "
                "optimizer.lr=tag(log,interval(1e-4,1e-1)), model.dropout=interval(0,0.5) or head=gaussian,laplace"
            )
        distributions = {name: _distribution(item) for name, item in swept.items()}
        return cls(fixed, distributions, {name: item.get_key_element() for name, item in swept.items()})

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial: the fixed ones, and those of its parameters."""
        return [*self.fixed, *(f"{self.keys[name]}={params[name]}" for name in self.distributions)]

    def extremes(self) -> Iterator[list[str]]:
        """The overrides of trials at the ends of each setting, and at all its choices, the others at their first."""
        ends = {name: _ends(one) for name, one in self.distributions.items()}
        first = {name: values[0] for name, values in ends.items()}
        yield self.overrides(first)
        for name, values in ends.items():
            for value in values[1:]:
                yield self.overrides({**first, name: value})


def _distribution(item: Override) -> Any:
    """The distribution of a swept setting."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    name, value = item.get_key_element().lstrip("+"), item.value()
    is_log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            assert low is not None
            assert high is not None
            kind: Any = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
            return kind(low, high, log=is_log)
        if isinstance(value, RangeSweep) and not value.shuffle and not is_log:
            values = list(value.range())
            if not values:
                raise ValueError("the range is empty")
            kind = IntDistribution if all(isinstance(one, int) for one in values) else FloatDistribution
            low, high = min(values), max(values)
            return kind(low, high, step=abs(value.step))
        texts = list(dict.fromkeys(item.sweep_string_iterator()))
        if not texts:
            raise ValueError("there are no values")
        return CategoricalDistribution(texts)
    except (ValueError, AssertionError) as error:
        raise UsageError(f"{item.input_line}: {name} cannot be searched: {error}") from error


def _ends(distribution: Any) -> list[Any]:
    return list(distribution.choices) if hasattr(distribution, "choices") else [distribution.low, distribution.high]

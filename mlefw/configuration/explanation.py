"""The settings of `mlefw explain` and `model.explain`."""

from dataclasses import dataclass, field, fields
from typing import Self

from mlefw.configuration.settings import AppliedSettings, Node
from mlefw.errors import UsageError


@dataclass(frozen=True)
class ExplanationSettings:
    """How `mlefw explain` and `model.explain` explain a model.

    Args:
        max_rows: most rows that are explained; of more a random part is.
        repeats: number of permutations of each feature, of either kind.
        bins: number of bins, with about equal numbers of rows, over which the effects of a number are accumulated.
        seed: of the choice of rows and of the permutations.

    Raises:
        UsageError: naming a setting that is out of range.
    """

    max_rows: int = 10_000
    repeats: int = 5
    bins: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name, least in (("max_rows", 2), ("repeats", 1), ("bins", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"explain.{name}={value}: expected a whole number of at least {least}")

    @classmethod
    def given(cls, **settings: int) -> Self:
        """The record of settings by name.

        Raises:
            UsageError: there is no setting of a name, or it is out of range.
        """
        known = [one.name for one in fields(cls)]
        if unknown := sorted({*settings} - {*known}):
            raise UsageError(f"explain({unknown[0]}=…): there is no such setting: expected {', '.join(known)}")
        return cls(**settings)


@dataclass(frozen=True)
class ExplainSettings(AppliedSettings):
    """The settings of `mlefw explain`.

    Args:
        split: the split of the run's own data that is explained if `data.path` is not set; by default `test`.
        output: a new folder for the page, its pictures and its tables.
        explain: how.
    """

    split: str | None = None
    output: str = "explanation"
    explain: ExplanationSettings = field(default_factory=ExplanationSettings)

    @classmethod
    def of(cls, plain: Node) -> Self:
        """The record of a resolved configuration in plain containers; null stands for the default."""
        how = {name: value for name, value in (plain.get("explain") or {}).items() if value is not None}
        return super().of({**plain, "explain": ExplanationSettings(**how)})

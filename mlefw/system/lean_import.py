"""torchmetrics without scipy.signal, which it imports only to mend a name there: a tenth of a program's start."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class Unread(ModuleType):
    """Stands for a module until something of it is asked for that the stand-in does not have."""

    def __getattr__(self, name: str) -> Any:
        """What the module itself has."""
        if name[:2] == "__" and name != "__path__":
            # Who goes through all modules wants nothing of this one.
            raise AttributeError(name)
        self.withdraw()
        return getattr(import_module(self.__name__), name)

    def withdraw(self) -> None:
        """Make room for the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


_signal = Unread("scipy.signal")
# What torchmetrics would add where it is missing.
_signal.hamming = None  # type: ignore[attr-defined]
sys.modules.setdefault(_signal.__name__, _signal)
try:
    import torchmetrics as torchmetrics
finally:
    _signal.withdraw()

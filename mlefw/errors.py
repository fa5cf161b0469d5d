"""Errors that a user can mend, each with the exit code of the command that meets it."""


class MlefwError(Exception):
    """A failure with a message meant for the user and the exit code it ends the command with."""

    exit_code = 70


class Stopped(BaseException):
    """A signal asked the program to end. Not an `Exception`, so that nothing on the way takes it for a failure."""

    def __init__(self, name: str, exit_code: int) -> None:
        super().__init__(f"stopped by {name}")
        self.exit_code = exit_code


class UsageError(MlefwError):
    """A mistake in a setting, the configuration or the data, found before anything is written."""

    exit_code = 2


class MisfitError(UsageError):
    """The head is not for this target or its exposure: in a sweep over heads another one may be."""


class NumericalError(MlefwError):
    """Training or an exact solve produced a value that is not finite."""

    exit_code = 3


class StorageError(MlefwError):
    """A file could not be written or read back whole."""

    exit_code = 4


class KilledError(MlefwError):
    """A process of the run was killed by a signal, which is no mistake of anybody's code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LostRankError(MlefwError):
    """Another process of the same run has ended, for a reason of its own that it has told itself."""

    exit_code = 71


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure is one of memory: torch has an error of its own for GPUs alone."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    is_said = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return isinstance(error, MemoryError) or is_said

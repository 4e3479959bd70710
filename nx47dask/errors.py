"""Errors of nx47dask: a base class, and specific classes that also inherit from the matching built-in error.

A message says what is wrong, where (file, volume id, block), and gives both values. It uses the plain name of a
parameter (``block 100``), because people read it in Python as well as on the command line. The hint says what to do
next. Only the hint may name an option, written as on the command line (``--block``); in Python this is the keyword of
the same name. A caller that knows better what to do next replaces the hint and keeps the message.

``exit_code`` is what the command line returns for an error.
"""

from __future__ import annotations

from typing import Self

__all__ = [
    "BlockError",
    "ClusterError",
    "DeviceMemoryError",
    "GateError",
    "InputError",
    "ModelError",
    "Nx47Error",
    "PlanMismatchError",
    "RunLockedError",
    "RunStoppedError",
    "StorageError",
    "WorkflowError",
]


class Nx47Error(Exception):
    """Base class of all errors that nx47dask raises on purpose.

    Parameters
    ----------
    message : str
        The place of the error, what is wrong there, and both values.
    hint : str
        The next thing to do; empty if nothing helps.

    Notes
    -----
    ``str(error)`` joins both. Errors travel between processes: hint, notes and attributes survive pickling.

    Examples
    --------
    Every error of the package has this base class, a hint, and the exit code of the command line:

    >>> import nx47dask
    >>> try:
    ...     nx47dask.write_phantom("scans", (8, 64))
    ... except nx47dask.Nx47Error as error:
    ...     print(error.message)
    ...     print(error.hint)
    ...     print(error.exit_code)
    shape 8,64: expected three sizes Z,Y,X of at least 1 voxel each
    choose another --shape
    2

    The specific classes inherit from a built-in error too, so code that does not know nx47dask can catch them:

    >>> from nx47dask.errors import InputError
    >>> issubclass(InputError, ValueError)
    True

    A caller that knows the place adds it, and a caller that knows better what to do replaces the hint:

    >>> str(InputError("block 100: too small", hint="choose another --block").at("run a").with_hint("use 128"))
    'run a: block 100: too small; use 128'
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        # A message of several lines ends in a list; the hint must not look like a part of the last entry.
        return self.message + ("\n" if "\n" in self.message else "; ") + self.hint

    def with_hint(self, hint: str) -> Self:
        """Return this error with another hint, for a caller that knows better what to do next."""
        return self._reworded(self.message, hint)

    def at(self, place: str) -> Self:
        """Return this error with a place in front of its message, such as a run or a block."""
        return self._reworded(f"{place}: {self.message}", self.hint)

    def _reworded(self, message: str, hint: str) -> Self:
        """Return an error of the same class with the same attributes, notes and cause."""
        error = type(self)(message, hint=hint)
        vars(error).update({name: value for name, value in vars(self).items() if name not in vars(error)})
        error.__cause__ = self.__cause__
        return error


class InputError(Nx47Error, ValueError):
    """Error for an input volume, path or option that cannot be used as it is."""

    exit_code = 2


class WorkflowError(InputError):
    """Error for a workflow file or an override that is not valid."""


class ModelError(Nx47Error, ValueError):
    """Error for a trained network that cannot be used: its file, classes, output or trust are missing or wrong."""

    exit_code = 2


class PlanMismatchError(InputError):
    """Error for a run folder that holds the work of another plan."""


class RunLockedError(InputError):
    """Error for a run folder in which another client is working."""


class ClusterError(Nx47Error, RuntimeError):
    """Error for a Dask cluster that cannot be started or reached."""

    exit_code = 2


class GateError(Nx47Error):
    """Error for a complete result that fails a validation, a verification or a regression gate."""

    exit_code = 4


class StorageError(Nx47Error, OSError):
    """Error for a result that cannot be stored (disk full, read-only, missing permission)."""

    exit_code = 3


class BlockError(Nx47Error, RuntimeError):
    """Error in a block of a volume; the message names the stage, the block and its box."""

    exit_code = 3


class DeviceMemoryError(BlockError):
    """Error of a block for which a GPU has too little memory."""

    worker: str = ""
    """Address of the worker, which must be restarted."""


class RunStoppedError(Nx47Error, RuntimeError):
    """Error for a run that stopped part-way; its run folder can be resumed."""

    exit_code = 3

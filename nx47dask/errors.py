"""Errors of nx47dask: one base class and a few specific ones that also inherit the matching builtin.

A message says what is wrong, where (file, volume id, block) and both values. It calls a parameter by its plain name
(``block 100``), for it is read in Python as well as on the command line. The hint says what to do next. It alone may
name an option, written as on the command line (``--block``); in Python that is the keyword of the same name. A caller
that knows better what to do next replaces the hint and leaves the message alone.

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
    """Base of every error that nx47dask raises on purpose.

    Parameters
    ----------
    message : str
        The error: its place, what is wrong there, and both values.
    hint : str
        The next thing to do, if anything helps.

    Notes
    -----
    ``str(error)`` is both in one. Errors cross processes: hint, notes and attributes survive pickling.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        # A message of several lines ends in a list, and the hint is no part of its last entry.
        return self.message + ("\n" if "\n" in self.message else "; ") + self.hint

    def with_hint(self, hint: str) -> Self:
        """Return this error with another hint, for a caller that knows better what to do next."""
        return self._reworded(self.message, hint)

    def at(self, place: str) -> Self:
        """Return this error with a place in front of its message, such as the run or the block that it stopped."""
        return self._reworded(f"{place}: {self.message}", self.hint)

    def _reworded(self, message: str, hint: str) -> Self:
        """The same kind with the same attributes, notes and cause."""
        error = type(self)(message, hint=hint)
        vars(error).update({name: value for name, value in vars(self).items() if name not in vars(error)})
        error.__cause__ = self.__cause__
        return error


class InputError(Nx47Error, ValueError):
    """An input volume, path or option cannot be used as it is."""

    exit_code = 2


class WorkflowError(InputError):
    """A workflow file or an override is not valid."""


class ModelError(Nx47Error, ValueError):
    """A trained network cannot be used: a file, a class count, an output, or trust is missing or wrong."""

    exit_code = 2


class PlanMismatchError(InputError):
    """A run folder holds the work of another plan."""


class RunLockedError(InputError):
    """Another client is working in the run folder."""


class ClusterError(Nx47Error, RuntimeError):
    """A Dask cluster cannot be started or reached."""

    exit_code = 2


class GateError(Nx47Error):
    """A result is complete but does not pass: a validation, a verification, a regression gate."""

    exit_code = 4


class StorageError(Nx47Error, OSError):
    """A result cannot be stored (disk full, read-only, missing permission)."""

    exit_code = 3


class BlockError(Nx47Error, RuntimeError):
    """One block of one volume failed; the message names the stage, the block and its box."""

    exit_code = 3


class DeviceMemoryError(BlockError):
    """A GPU ran out of memory in one block."""

    worker: str = ""
    """Address of the worker, to start it anew."""


class RunStoppedError(Nx47Error, RuntimeError):
    """A run stopped part-way; the run folder can be resumed."""

    exit_code = 3

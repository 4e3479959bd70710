"""Errors of nx47dask: one base class and a few specific ones that also inherit the matching builtin.

A message says what is wrong, where (file, volume id, block), both values, and what to do next.
``exit_code`` is what the command line returns for it.
"""

from __future__ import annotations

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
    """Base of every error that nx47dask raises on purpose."""

    exit_code = 1


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

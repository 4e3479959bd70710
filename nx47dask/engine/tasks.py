"""Work of the engine: tasks, batches of them, pipelines of batches, and the outcome of a try of a task."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from nx47dask.geometry import Index

__all__ = ["Batch", "Failure", "Outcome", "Pipeline", "Result", "Task"]

T = TypeVar("T")

Result = Mapping[str, object]
"""JSON values that a task returns, by name; the stage of the task has a type of its own for them."""


@dataclass(frozen=True, slots=True)
class Task:
    """One self-contained piece of work: it reads from stores, writes to stores and returns a small record.

    Attributes
    ----------
    number : int
        Identity within its stage (a block's number).
    place : str
        What it works on, for messages: a block and its box.
    function : callable
        Module-level function; takes ``arguments`` and returns JSON values by name.
    arguments : tuple
        Small picklable values.
    voxels : int
        Voxels that it covers, for progress.
    resources : dict, optional
        Worker resources that it needs, such as ``{"GPU": 1}``; one that no worker has is not asked for.
    key : str
        Identity of what the task reads beyond the plan of its run; a record of another key does not count.
    known : dict, optional
        Its result, where that is known without running anything: it is recorded at once, as skipped.
    smaller : Task, optional
        What to run instead when a GPU ran out of memory: the same result in smaller pieces.
    """

    number: int
    place: str
    function: Callable[..., Result]
    arguments: tuple[Any, ...]
    voxels: int = 0
    resources: Mapping[str, float] | None = None
    key: str = ""
    known: Result | None = None
    smaller: Task | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The tasks of one stage of one volume.

    Attributes
    ----------
    stage : str
    tasks : iterable of Task
        Read lazily, once.
    count : int
        How many there are.
    voxels : int
        What they cover together, for progress.
    grid : tuple of int, optional
        Blocks per axis where the tasks are numbered in raster order of a grid, for a map of them.
    """

    stage: str
    tasks: Iterable[Task]
    count: int
    voxels: int
    grid: Index | None = None


Pipeline = Generator[Batch, dict[int, Any], T]
"""A volume: yields batches and is sent the records of each, with what its tasks returned, when all of them are done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a try of a task: its result, the error it raised, or the end of the worker that ran it.

    Attributes
    ----------
    ticket : int
    result : dict, optional
    error : BaseException, optional
    worker_died : bool
        The error is that workers ended while they had the task; others that they had may be innocent as well.
    """

    ticket: int
    result: Result | None = None
    error: BaseException | None = None
    worker_died: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed try of a task.

    Attributes
    ----------
    stage : str
    number : int
    place : str
        What it worked on: a block and its box.
    attempt : int
        From 1.
    message : str
        The error in one line.
    traceback : str
        Where it was raised, on the worker.
    final : bool
        It is not tried again: the block is quarantined.
    """

    stage: str
    number: int
    place: str
    attempt: int
    message: str
    traceback: str
    final: bool

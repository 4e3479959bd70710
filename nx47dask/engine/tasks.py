"""Tasks, batches of tasks, pipelines of batches, and the outcome of a task."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nx47dask.engine.ledger import Record
from nx47dask.geometry import Index

__all__ = ["Batch", "Failure", "Outcome", "Pipeline", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """Self-contained piece of work: it reads from stores, writes to stores and returns a small record.

    Attributes
    ----------
    number : int
        Number within its stage: that of the block.
    place : str
        Block and box that it works on, for messages.
    function : callable
        Module-level function; takes ``arguments`` and returns a dict of JSON values.
    arguments : tuple
        Small picklable values.
    voxels : int
        Voxels that it covers, for progress.
    resources : dict, optional
        Worker resources that it needs, such as ``{"GPU": 1}``; a resource that no worker has is not asked for.
    key : str
        Identity of what the task reads beyond the plan of its run; a record with another key does not count.
    known : dict, optional
        Result, where it is known without running the task; it is recorded at once, as skipped.
    smaller : Task, optional
        Task to run instead when a GPU ran out of memory: it gives the same result in smaller pieces.
    """

    number: int
    place: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    voxels: int = 0
    resources: Mapping[str, float] | None = None
    key: str = ""
    known: Record | None = None
    smaller: Task | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks of one stage of one volume.

    Attributes
    ----------
    stage : str
    tasks : iterable of Task
        Read lazily, once.
    count : int
        Number of tasks.
    voxels : int
        Voxels that they cover together, for progress.
    grid : tuple of int, optional
        Blocks per axis where the tasks are numbered in raster order of a grid, for a map of them.
    """

    stage: str
    tasks: Iterable[Task]
    count: int
    voxels: int
    grid: Index | None = None


Pipeline = Generator[Batch, dict[int, Record], Any]
"""Generator of a volume's work: yields batches and is sent the records of each when all of its tasks are done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one try of a task: its result, the error that it raised, or the death of its worker.

    Attributes
    ----------
    ticket : int
    result : dict, optional
    error : BaseException, optional
    worker_died : bool
        True if workers died while they had the task. Another of their tasks may be the cause.
    """

    ticket: int
    result: dict[str, Any] | None = None
    error: BaseException | None = None
    worker_died: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Failed try of a task.

    Attributes
    ----------
    stage : str
    number : int
    place : str
        Block and box that it worked on.
    attempt : int
        Number of the try, from 1.
    message : str
        Error in one line.
    traceback : str
        Traceback on the worker.
    final : bool
        True if the task is not tried again.
    """

    stage: str
    number: int
    place: str
    attempt: int
    message: str
    traceback: str
    final: bool

"""Speed and remaining time of a run, estimated from the times of its tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Pace", "StageWork", "share_done", "time_left_s"]

LATELY_S = 60.0
TASKS_LATELY = 4.0
"""Recent time in mean times of a task, where that is longer than LATELY_S."""
MOST_SAMPLES = 4000


@dataclass(frozen=True, slots=True)
class StageWork:
    """Work of a stage that is done and that remains, over all volumes.

    Attributes
    ----------
    name : str
    settled : int
        Finished tasks: done (also by an earlier client), skipped or quarantined.
    left : int
        Remaining tasks, including those expected of volumes that have not reached the stage; 0 for a stage that no
        volume has reached.
    ran : int
        Tasks that ran for this client.
    task_s : float
        Sum of their times, in seconds.
    begun : bool
        True if at least one volume has reached the stage.
    """

    name: str
    settled: int
    left: int
    ran: int
    task_s: float
    begun: bool = True

    @property
    def mean_s(self) -> float | None:
        """Mean time of a task; None before the first has ended."""
        return self.task_s / self.ran if self.ran else None


def time_left_s(stages: Iterable[StageWork], at_once: float | None) -> tuple[float | None, list[str]]:
    """Estimate the seconds until all tasks have ended, and list the stages that the estimate leaves out.

    For each stage the mean time of a task is multiplied by the remaining tasks. The sum over the stages is divided by
    the number of tasks that ran at a time recently.

    Parameters
    ----------
    stages : iterable of StageWork
    at_once : float or None
        Seconds of tasks done in a second; see :meth:`Pace.at_once`.

    Returns
    -------
    left_s : float or None
        Remaining time without the stages in ``unknown``, so a lower bound if there are any; None when nothing is known.
    unknown : list of str
        Stages with remaining tasks of which none has ended yet, and stages that no volume has reached.
    """
    work_s, known, unknown = 0.0, False, []
    for stage in stages:
        if stage.left and stage.mean_s is not None:
            work_s, known = work_s + stage.left * stage.mean_s, True
        elif stage.left or not stage.begun:
            unknown.append(stage.name)
    if known:
        return (work_s / at_once if at_once else None), unknown
    return (None if unknown else 0.0), unknown


def share_done(stages: Iterable[StageWork]) -> float:
    """Return the share of the work that is done, 0 to 1: tasks, weighted by the mean time of their stage.

    A stage that no volume has reached, or whose tasks have no time yet, gets the average weight of the others.
    """
    stages = list(stages)
    weights = [_weight(stage) for stage in stages]
    known = [weight for weight in weights if weight is not None]
    mean = sum(known) / len(known) if known else 1.0
    done = total = 0.0
    for stage, weight in zip(stages, weights, strict=True):
        tasks = stage.settled + stage.left
        total += mean if weight is None else weight
        done += (mean if weight is None else weight) * (stage.settled / tasks if tasks else 0.0)
    return done / total if total else 0.0


def _weight(stage: StageWork) -> float | None:
    """Return the time of all tasks of a stage; 0 for a stage that was over before this client, None if unknown."""
    if stage.mean_s is not None:
        return stage.mean_s * (stage.settled + stage.left)
    return None if stage.left or not stage.begun else 0.0


class Pace:
    """Recent speed of a run: over the last minute, or over a few mean times of a task where these are longer."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float]] = deque(maxlen=MOST_SAMPLES)
        self._task_s = self._voxels = 0.0
        self._tasks = 0

    def start(self, time_s: float) -> None:
        """Note the time at which the work starts."""
        self._samples.append((time_s, self._task_s, self._voxels))

    def add(self, time_s: float, tasks: int, task_s: float, voxels: float) -> None:
        """Add a number of tasks that ended, the sum of their times and the voxels that they cover."""
        self._task_s, self._voxels = self._task_s + task_s, self._voxels + voxels
        self._tasks += tasks
        if self._samples and self._samples[-1][0] > time_s - 0.4 and len(self._samples) > 1:
            self._samples.pop()
        self._samples.append((time_s, self._task_s, self._voxels))

    def at_once(self, now_s: float) -> float | None:
        """Return the seconds of tasks done in a second, so the tasks at a time; None when no task ended recently."""
        rate = self._rate(now_s, 1)
        return rate or None

    def voxels_per_s(self, now_s: float) -> float | None:
        """Return the voxels done in a second, all stages together; None before anything is known."""
        return self._rate(now_s, 2)

    def _rate(self, now_s: float, item: int) -> float | None:
        mean_s = self._task_s / self._tasks if self._tasks else 0.0
        since_s = now_s - max(LATELY_S, TASKS_LATELY * mean_s)
        while len(self._samples) > 1 and self._samples[1][0] <= since_s:
            self._samples.popleft()
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        return (last[item] - first[item]) / max(now_s - first[0], 1e-3)

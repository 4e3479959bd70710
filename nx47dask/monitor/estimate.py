"""Speed of a run and the time it still takes, from the times of its tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Pace", "StageWork", "share_done", "time_left_s"]

LATELY_S = 60.0
TASKS_LATELY = 4.0
"""Mean lengths of a task that count as lately where tasks are long."""
MOST_SAMPLES = 4000


@dataclass(frozen=True, slots=True)
class StageWork:
    """Work of a stage that is done and that is left, over all volumes.

    Attributes
    ----------
    name : str
    settled : int
        Tasks that nothing is left to do for: done, by an earlier client too, skipped or quarantined.
    left : int
        Tasks that still have to end, also those expected of volumes that have not reached the stage; 0 for a stage
        that no volume has reached.
    ran : int
        Tasks that ran for this client.
    task_s : float
        Sum of their own times, in seconds.
    begun : bool
        Some volume has reached the stage.
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
    """Seconds until all tasks have ended, and the stages of which that is not known.

    The mean time of each stage's tasks times the tasks that it has left, added up and divided by how many tasks ran at
    a time lately.

    Parameters
    ----------
    stages : iterable of StageWork
    at_once : float or None
        Seconds of tasks done in a second; see :meth:`Pace.at_once`.

    Returns
    -------
    left_s : float or None
        Without the stages of the list, so the least that it takes where there are some; None when nothing is known.
    unknown : list of str
        Stages with tasks left of which none has ended yet, and those that no volume has reached.
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
    """Part of the work that is done, 0 to 1: tasks, weighed by the mean time of their stage.

    A stage that no volume has reached, or whose tasks have no time yet, weighs as much as the others do on average.
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
    """Time of all tasks of a stage; nothing for one that was over before this client."""
    if stage.mean_s is not None:
        return stage.mean_s * (stage.settled + stage.left)
    return None if stage.left or not stage.begun else 0.0


class Pace:
    """Work done lately: in the last minute, or in the time of a few tasks where these take longer."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float]] = deque(maxlen=MOST_SAMPLES)
        self._task_s = self._voxels = 0.0
        self._tasks = 0

    def start(self, time_s: float) -> None:
        """Nothing is done yet."""
        self._samples.append((time_s, self._task_s, self._voxels))

    def add(self, time_s: float, tasks: int, task_s: float, voxels: float) -> None:
        """Tasks that ended, the sum of their own times, the voxels that they cover."""
        self._task_s, self._voxels = self._task_s + task_s, self._voxels + voxels
        self._tasks += tasks
        if self._samples and self._samples[-1][0] > time_s - 0.4 and len(self._samples) > 1:
            self._samples.pop()
        self._samples.append((time_s, self._task_s, self._voxels))

    def at_once(self, now_s: float) -> float | None:
        """Seconds of tasks done in a second: how many ran at a time; None when no task ended lately."""
        rate = self._rate(now_s, 1)
        return rate or None

    def voxels_per_s(self, now_s: float) -> float | None:
        """Voxels done in a second, all stages together; None before anything is known."""
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

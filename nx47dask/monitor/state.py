"""State of running jobs: blocks by state, sums, the last failures, the share done and the remaining time.

The scheduler keeps the state of all its jobs for the live page; clients send changes in messages of plain values
(:meth:`Jobs.apply`). ``nx47dask status`` builds the state of one job from the files of a run folder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.monitor.estimate import Pace, StageWork, share_done, time_left_s

__all__ = ["DONE", "QUARANTINED", "REPEATED", "RETRYING", "SKIPPED", "STATES", "WAITING", "Job", "Jobs"]

STATES = ("waiting", "retrying", "done", "done after a retry", "skipped", "quarantined")
"""States of a block; the scheduler tells which waiting blocks are running."""
WAITING, RETRYING, DONE, REPEATED, SKIPPED, QUARANTINED = range(len(STATES))
SETTLED = (DONE, REPEATED, SKIPPED, QUARANTINED)
MOST_JOBS = 8
MOST_ERRORS = 50

Running = Mapping[tuple[str, str], list[int]]
"""Numbers of the blocks that workers run, by volume and stage."""


@dataclass
class BlockMap:
    """Blocks of one stage of one volume, with their states.

    Attributes
    ----------
    grid : list of int or None
        Blocks per axis (Z, Y, X) where they are numbered in raster order.
    count : int or None
        Number of blocks that was announced; None where only states were sent.
    began : int
        Number of the change that made the map.
    states : array of uint8, shape (blocks,)
        State of each block, an index into :data:`STATES`.
    changed : array of int64, shape (blocks,)
        Number of the change that gave each block its state.
    """

    grid: list[int] | None
    count: int | None
    began: int = 0

    def __post_init__(self) -> None:
        self.states: NDArray[np.uint8] = np.zeros(self.count or 0, np.uint8)
        self.changed: NDArray[np.int64] = np.zeros(self.count or 0, np.int64)

    def put(self, numbers: Sequence[int], states: bytes, change: int) -> None:
        """Set the states of blocks; the map grows for a number beyond those announced."""
        missing = max(numbers, default=0) + 1 - len(self.states)
        if missing > 0:
            self.states = np.append(self.states, np.zeros(missing, np.uint8))
            self.changed = np.append(self.changed, np.zeros(missing, np.int64))
        where = np.asarray(numbers, np.int64)
        self.states[where] = np.frombuffer(states, np.uint8)
        self.changed[where] = change

    def counts(self) -> NDArray[np.int64]:
        """Count the blocks in each state; unused numbers of a grown map do not count."""
        counts = np.bincount(self.states, minlength=len(STATES))
        counts[WAITING] = max(0, (self.count or 0) - counts[RETRYING:].sum())
        return counts

    def changes(self, since: int) -> dict[str, Any]:
        """Return the blocks that changed, by state; for a reader that does not know the map, all states as digits."""
        if since < self.began:
            return {"grid": self.grid, "states": (self.states + ord("0")).tobytes().decode()}
        late = np.flatnonzero(self.changed > since)
        states = self.states[late]
        return {"late": {str(state): late[states == state].tolist() for state in np.unique(states).tolist()}}


@dataclass
class Volume:
    """State of one volume of a job."""

    maps: dict[str, BlockMap] = field(default_factory=dict)
    written: bool = False
    changed: int = 0

    def line(self) -> list[Any]:
        """Return the line for a list of volumes: state, current stage, share of it, blocks by state of all stages."""
        if not self.maps:
            return ["waiting", "", 0.0, [0] * len(STATES)]
        counts = {stage: blocks.counts() for stage, blocks in self.maps.items()}
        total = np.sum(list(counts.values()), axis=0)
        stage = list(self.maps)[-1]
        open_blocks = int(counts[stage][[WAITING, RETRYING]].sum())
        share = 1 - open_blocks / max(1, int(counts[stage].sum()))
        state = "quarantined" if total[QUARANTINED] else "done" if self.written and not open_blocks else "under way"
        return [state, stage, round(share, 4), total.tolist()]


class Job:
    """State of a run, running or ended.

    Parameters
    ----------
    title : mapping
        Fields of :class:`nx47dask.engine.events.JobTitle`.
    started_s : float
        Unix time of its start.
    id, client : str
        Identifiers of the job and of its client on a scheduler.
    change : int
        Number of this change.
    """

    def __init__(
        self, title: Mapping[str, Any], started_s: float, id: str = "", client: str = "", change: int = 0
    ) -> None:
        self.id, self.client = id, client
        self.state, self.message = "running", ""
        self.ended_s: float | None = None
        self.number = -1
        self.volumes: dict[str, Volume] = {}
        self.sums: dict[str, dict[str, float]] = {}
        self.errors: deque[dict[str, Any]] = deque(maxlen=MOST_ERRORS)
        self.start(title, started_s, change)

    def start(self, title: Mapping[str, Any], started_s: float, change: int = 0) -> None:
        """Start the run with a client, or continue it: finished work stays, the pace is that of this client."""
        self.title, self.started_s = dict(title), started_s
        self.volumes = {name: self.volumes.get(name) or Volume(changed=change) for name in title["volumes"]}
        self.pace = Pace()
        self.pace.start(started_s)

    @property
    def stages(self) -> list[str]:
        """Names of the stages in the order in which volumes go through them, begun or not."""
        order: list[str] = list(self.title["stages"])
        for volume in self.volumes.values():
            for before, stage in zip([None, *volume.maps], volume.maps, strict=False):
                if stage not in order:
                    order.insert(order.index(before) + 1 if before else 0, stage)
        return order

    def apply(self, message: Mapping[str, Any], change: int) -> None:
        """Apply a message with the changes since the last one; a message that came already is ignored."""
        if message["number"] <= self.number:
            return
        self.number = message["number"]
        for name, stage, count, grid in message.get("stages", ()):
            self.enter(name, stage, count, grid, change)
        for name, stage, numbers, states in message.get("blocks", ()):
            self.put(name, stage, numbers, states, change)
        for name in message.get("written", ()):
            self._volume(name, change).written = True
        for stage, sums in message.get("sums", {}).items():
            before = self.sums.get(stage, {})
            self.sums[stage] = dict(sums)
            gained = [sums[key] - before.get(key, 0) for key in ("tasks", "task_s", "voxels")]
            self.pace.add(message["time_s"], int(gained[0]), *gained[1:])
        self.errors.extend({**error, "change": change} for error in message.get("errors", ()))
        if "ended" in message:
            state, words = message["ended"]
            self.end(state, words, message["time_s"])

    def enter(self, name: str, stage: str, count: int, grid: list[int] | None = None, change: int = 0) -> None:
        """Note that a volume starts a stage of ``count`` blocks; a stage that starts again becomes the last one."""
        maps = self._volume(name, change).maps
        maps.pop(stage, None)
        maps[stage] = BlockMap(grid, count, change)

    def put(self, name: str, stage: str, numbers: Sequence[int], states: bytes, change: int = 0) -> None:
        """Set the states of blocks of a volume, even in a stage whose start was not announced."""
        self._volume(name, change).maps.setdefault(stage, BlockMap(None, None, change)).put(numbers, states, change)

    def end(self, state: str, words: str, time_s: float) -> None:
        """Note that the job ended: "done", "stopped", or "lost" with its client."""
        self.state, self.message, self.ended_s = state, words, time_s

    def work(self) -> list[StageWork]:
        """Return the work of every stage over all volumes; a volume that has not begun it counts with the average."""
        return [self._work(stage, counts, begun) for stage, (counts, begun) in self.totals().items()]

    def totals(self) -> dict[str, tuple[list[int], int]]:
        """Count blocks by state, and volumes that have begun, for each stage."""
        totals = {stage: (np.zeros(len(STATES), np.int64), 0) for stage in self.stages}
        for volume in self.volumes.values():
            for stage, blocks in volume.maps.items():
                counts, begun = totals[stage]
                totals[stage] = counts + blocks.counts(), begun + 1
        return {stage: (counts.tolist(), begun) for stage, (counts, begun) in totals.items()}

    def outlook(self, now_s: float) -> dict[str, Any]:
        """Return the share done and, while the job runs, its remaining time and its speed.

        Returns
        -------
        dict
            "share" (0 to 1), "left_s" (seconds or None), "unknown" (stages that "left_s" leaves out), "voxels_per_s".
        """
        work, alive = self.work(), self.state == "running"
        left_s, unknown = time_left_s(work, self.pace.at_once(now_s)) if alive else (None, [])
        speed = self.pace.voxels_per_s(now_s) if alive else None
        return {"share": share_done(work), "left_s": left_s, "unknown": unknown, "voxels_per_s": speed}

    def answer(
        self, since: int, wanted: str | None, known: str | None, now_s: float, running: Running
    ) -> dict[str, Any]:
        """Return the data for a page that knows all changes up to ``since``, with the maps of volume ``known``.

        It gets the maps of the volume ``wanted``, or else of a volume that is in progress.
        """
        shown = wanted if wanted in self.volumes else self._under_way()
        maps = self.volumes[shown].maps if shown else {}
        maps_since = since if shown == known else 0
        now_s = self.ended_s or now_s
        outlook = self.outlook(now_s)
        return {
            "id": self.id,
            **{key: self.title[key] for key in ("name", "out", "workflow")},
            "state": self.state,
            "message": self.message,
            "running_s": round(now_s - self.started_s, 1),
            **outlook,
            "share": round(outlook["share"], 4),
            "stages": [self._stage(work) for work in self.work()],
            "count": len(self.volumes),
            "volumes": {name: volume.line() for name, volume in self.volumes.items() if volume.changed > since},
            "volume": shown,
            "maps": {
                stage: {**blocks.changes(maps_since), "running": running.get((str(shown), stage), [])}
                for stage, blocks in maps.items()
            },
            "errors": [error for error in self.errors if error["change"] > since],
        }

    def _volume(self, name: str, change: int) -> Volume:
        volume = self.volumes.setdefault(name, Volume())
        volume.changed = change
        return volume

    def _under_way(self) -> str | None:
        """Choose the volume to show: the first that is in progress, else the last that has begun."""
        begun = [name for name, volume in self.volumes.items() if volume.maps]
        active = [name for name in begun if self.volumes[name].line()[0] == "under way"]
        return active[0] if active else begun[-1] if begun else None

    def _work(self, stage: str, counts: list[int], begun: int) -> StageWork:
        blocks, settled = sum(counts), sum(counts[state] for state in SETTLED)
        sums = self.sums.get(stage, {})
        # In a calibration stages differ from volume to volume, so that those of later volumes are unknown.
        maps = [volume.maps[stage] for volume in self.volumes.values() if stage in volume.maps]
        sizes = [known.count for known in maps if known.count is not None]
        alike = sizes and self.title["stages"]
        expected = max(blocks, round(sum(sizes) / len(sizes) * len(self.volumes))) if alike else blocks
        return StageWork(
            stage, settled, expected - settled, int(sums.get("tasks", 0)), sums.get("task_s", 0.0), begun > 0
        )

    def _stage(self, work: StageWork) -> dict[str, Any]:
        sums = self.sums.get(work.name, {})
        counted = {key: int(sums.get(key, 0)) for key in ("resumed", "skipped", "retried", "quarantined")}
        rate = sums["voxels"] / work.task_s if work.task_s and sums.get("voxels") else None
        return {
            "name": work.name,
            "settled": work.settled,
            "blocks": work.settled + work.left if work.begun else None,
            "mean_s": work.mean_s,
            "voxels_per_s": rate,
            **counted,
        }


class Jobs:
    """State of all running jobs and of the last ones that ended, kept on the scheduler for the live page."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.changes = 0

    def apply(self, message: Mapping[str, Any]) -> None:
        """Apply a message of a client.

        Parameters
        ----------
        message : mapping
            "job", "number" and "time_s" (Unix time); "client" and "title" in the first of a job; and the changes:
            "stages" (volume, stage, number of blocks, blocks per axis or None), "blocks" (volume, stage, numbers, a
            byte of state for each), "sums" (totals by stage so far), "errors", "written" (volumes whose mask is
            written), "ended" (state and words).
        """
        self.changes += 1
        if message["job"] not in self.jobs:
            if "title" not in message:
                return
            opened = Job(message["title"], message["time_s"], message["job"], message["client"], self.changes)
            self.jobs[message["job"]] = opened
            ended = [job.id for job in self.jobs.values() if job.state != "running"]
            for old in ended[: max(0, len(self.jobs) - MOST_JOBS)]:
                del self.jobs[old]
        self.jobs[message["job"]].apply(message, self.changes)

    def lose(self, client: str, time_s: float) -> None:
        """Mark the running jobs of a client that is gone as lost."""
        self.changes += 1
        for job in self.jobs.values():
            if job.client == client and job.state == "running":
                job.end("lost", "the client has gone; go on with --resume", time_s)

    def choose(self, name: str | None) -> Job | None:
        """Return the job of an id; without one the last that runs, else the last."""
        if name in self.jobs:
            return self.jobs[name]
        jobs = list(self.jobs.values())
        return next((job for job in reversed(jobs) if job.state == "running"), jobs[-1] if jobs else None)

    def names(self) -> Iterable[dict[str, str]]:
        """List the jobs to choose from."""
        return [{"id": job.id, "name": job.title["name"], "state": job.state} for job in self.jobs.values()]

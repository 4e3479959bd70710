"""Read the progress and the failures of a run from its folder, under way or not; nothing is written."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nx47dask.engine.lines import read_lines
from nx47dask.engine.lock import lock_owner
from nx47dask.errors import InputError
from nx47dask.monitor.state import DONE, QUARANTINED, SKIPPED, Job

__all__ = ["Quarantined", "RunStatus", "StageStatus", "read_status"]

Key = tuple[str, str, int]
LAST = ("manifest.json", "calibration.json")
"""Files of which one is written last."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A block that failed in every try and has not been done since."""

    volume: str
    stage: str
    number: int
    place: str
    message: str


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Progress of a stage over all volumes.

    Attributes
    ----------
    name : str
    done : int
        Tasks with a record, skipped tasks included.
    tasks : int or None
        All tasks, with those expected of volumes that have not begun the stage; None before any volume has begun it.
    volumes : int
        Volumes that have begun it.
    skipped, retried, quarantined : int
        Tasks that did not have to run; tries that were repeated, by all clients of the run; blocks that failed in
        every try and have not been done since.
    task_s : float
        Sum of the times of its tasks, in seconds.
    merges : bool
        Its tasks merge the results of another stage and cover no voxels.
    """

    name: str
    done: int
    tasks: int | None
    volumes: int
    skipped: int
    retried: int
    quarantined: int
    task_s: float
    merges: bool


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Progress of a run, as its folder shows it.

    Attributes
    ----------
    folder : str
    state : {"running", "finished", "stopped", "killed"}
        "stopped": the last client ended before the run was complete; "killed": it ended without saying so.
    owner : str or None
        Client that works in the folder.
    workflow : str
    volumes, finished : int
        All volumes, and those whose mask is written.
    share : float
        Part of the work that is done, 0 to 1.
    stages : list of StageStatus
    voxels_per_s, left_s : float or None
        While it runs: recent speed and time left; see :func:`nx47dask.monitor.estimate.time_left_s`.
    unknown : list of str
        Stages that the time left does not include.
    quarantined : list of Quarantined
    last_s : float
        Unix time of the last event.
    advice : str
        What to do next.
    """

    folder: str
    state: Literal["running", "finished", "stopped", "killed"]
    owner: str | None
    workflow: str
    volumes: int
    finished: int
    share: float
    stages: list[StageStatus]
    voxels_per_s: float | None
    left_s: float | None
    unknown: list[str]
    quarantined: list[Quarantined]
    last_s: float
    advice: str

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)


@dataclass
class _Events:
    """Contents of ``events.jsonl``: the job as the live page shows it, and facts that only ``status`` needs.

    Attributes
    ----------
    job : Job
    ended : bool
        The last client ended the run.
    last_s : float
        Unix time of the last event.
    voxels : dict of (str, str) to float
        Voxels of a task, by volume and stage.
    failures : dict
        Events of the blocks that failed in every try.
    """

    job: Job
    ended: bool = False
    last_s: float = 0.0
    voxels: dict[tuple[str, str], float] = field(default_factory=dict)
    failures: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def add(self, event: dict[str, Any]) -> None:
        kind, self.last_s = event["event"], event["time_s"]
        if kind == "run-started":
            self.ended = False
            self.job.start({**self.job.title, **event}, self.last_s)
        elif kind == "run-ended":
            self.ended = True
        elif kind == "stage-started":
            self.job.enter(event["volume"], event["stage"], event["tasks"])
            self.voxels[event["volume"], event["stage"]] = event["voxels"] / max(1, event["tasks"])
        elif kind == "task-finished":
            self.job.pace.add(self.last_s, 1, event["seconds"], self.voxels.get((event["volume"], event["stage"]), 0))
        elif kind == "task-failed":
            if event["final"]:
                self.failures[event["volume"], event["stage"], event["number"]] = event
            else:
                _add(self.job, event["stage"], "retried", 1)


def read_status(folder: Path, now_s: float) -> RunStatus:
    """Read the progress of the run of a folder.

    Parameters
    ----------
    folder : Path
        A run folder, here or in an object store.
    now_s : float
        Unix time.

    Raises
    ------
    InputError
        It is no run folder, or a file of it cannot be read.
    """
    plan = _read_plan(folder)
    owner = lock_owner(folder)
    title = {"workflow": plan["workflow"].get("name", ""), "volumes": plan["inputs"], "stages": (), "arguments": []}
    # A calibration works on more than its inputs, in stages of its own; the events have their names.
    job = Job(title, 0.0)
    events = _Events(job)
    for event in _parse(folder / "events.jsonl"):
        events.add(event)
    for volume, stage, number in events.failures:
        job.put(volume, stage, [number], bytes([QUARANTINED]))
    _read_ledger(folder, job)
    failed = [key for key in events.failures if job.volumes[key[0]].maps[key[1]].states[key[2]] == QUARANTINED]
    calibrated = (folder / "calibration.json").is_file()
    finished = sum(calibrated or volume.written for volume in job.volumes.values())
    complete = finished == len(job.volumes) and not failed and any((folder / name).is_file() for name in LAST)
    state: Literal["running", "finished", "stopped", "killed"] = (
        "running" if owner else "killed" if not events.ended else "finished" if complete else "stopped"
    )
    job.state = state
    outlook = job.outlook(now_s)
    return RunStatus(
        folder=str(folder),
        state=state,
        owner=owner,
        workflow=str(job.title["workflow"]),
        volumes=len(job.volumes),
        finished=finished,
        **{**outlook, "share": 1.0 if state == "finished" else outlook["share"]},
        stages=_stages(job, events),
        quarantined=[Quarantined(*key, *_words(events.failures[key])) for key in failed],
        last_s=events.last_s,
        advice=_advice(state, len(failed), job.title["arguments"]),
    )


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / "ledger" / "plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        plan["inputs"], plan["workflow"]
    except FileNotFoundError as error:
        if owner := lock_owner(folder):
            raise InputError(
                f"{folder}: {owner} is starting a run here, or its cluster", hint="look again later"
            ) from error
        raise InputError(f"{folder}: no run folder ({path} is missing)", hint="name the --out of a run") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    return dict(plan)


def _parse(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = read_lines(path)
        yield from map(json.loads, lines)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def _read_ledger(folder: Path, job: Job) -> None:
    """Add to a job the tasks that have a record, and the volumes that are written."""
    for name, volume in job.volumes.items():
        states: dict[str, dict[int, int]] = {}
        for record in _parse(folder / "ledger" / f"{name}.jsonl"):
            stage, number, skipped = record["stage"], record["number"], bool(record.get("skipped"))
            if number not in states.setdefault(stage, {}):
                states[stage][number] = SKIPPED if skipped else DONE
                _add(job, stage, "tasks", not skipped)
                _add(job, stage, "task_s", record["seconds"])
            volume.written = volume.written or bool(record.get("last"))
        for stage, by_number in states.items():
            job.put(name, stage, [*by_number], bytes(by_number.values()))


def _add(job: Job, stage: str, key: str, amount: float) -> None:
    sums = job.sums.setdefault(stage, {})
    sums[key] = sums.get(key, 0) + amount


def _stages(job: Job, events: _Events) -> list[StageStatus]:
    voxels: dict[str, float] = {}
    for (_, stage), count in events.voxels.items():
        voxels[stage] = voxels.get(stage, 0) + count
    return [
        StageStatus(
            name=work.name,
            done=work.settled - counts[QUARANTINED],
            tasks=work.settled + work.left if work.begun else None,
            volumes=begun,
            skipped=counts[SKIPPED],
            retried=int(job.sums.get(work.name, {}).get("retried", 0)),
            quarantined=counts[QUARANTINED],
            task_s=round(work.task_s, 3),
            merges=voxels.get(work.name) == 0,
        )
        for work, (counts, begun) in zip(job.work(), job.totals().values(), strict=True)
    ]


def _words(failure: dict[str, Any]) -> tuple[str, str]:
    return failure["place"], str(failure["message"]).partition("\n")[0]


def _advice(state: str, quarantined: int, arguments: list[str]) -> str:
    if state == "finished":
        return "nothing is left to do"
    if state == "running" and not quarantined:
        return "wait for it"
    again = "the command of the run with --resume"
    if arguments[:1] in (["run"], ["calibrate"]):
        kept = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
        again = f"nx47dask {shlex.join(kept)} --resume"
    before = "wait for its end, " if state == "running" else ""
    return f"{before}{'mend what the errors name, ' * bool(quarantined)}then: {again}".removeprefix("then: ")

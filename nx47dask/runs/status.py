"""How far a run is and what failed, read from its folder, alive or dead; nothing is written."""

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
from nx47dask.monitor.estimate import Pace, StageWork, share_done, time_left_s

__all__ = ["Quarantined", "RunStatus", "StageStatus", "read_status"]

Key = tuple[str, str, int]
LAST = ("manifest.json", "calibration.json")
"""What is written last."""


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
    """One stage over all volumes.

    Attributes
    ----------
    name : str
    done : int
        Tasks with a record, skipped ones among them.
    tasks : int or None
        All tasks, those expected of volumes that have not begun the stage among them; None before the first has.
    volumes : int
        Volumes that have begun it.
    skipped, retried, quarantined : int
        Tasks that did not have to run; tries that were repeated, by all clients of the run; blocks that failed for
        good and have not been done since.
    task_s : float
        Sum of the tasks' own times, in seconds.
    merges : bool
        Its tasks unite what those of another stage found; they cover no voxels.
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
    """What a run folder says of its run.

    Attributes
    ----------
    folder : str
    state : {"running", "finished", "stopped", "killed"}
        "stopped": the last client ended before the run was complete; "killed": it could not even say so.
    owner : str or None
        Who works in the folder.
    workflow : str
    volumes, finished : int
        All volumes, and those whose mask is written.
    share : float
        Part of the work that is done, 0 to 1.
    stages : list of StageStatus
    voxels_per_s, left_s : float or None
        While it runs: speed lately and time left; see :func:`nx47dask.monitor.estimate.time_left_s`.
    unknown : list of str
        Stages that the time left does not count.
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
        """As plain values for JSON."""
        return asdict(self)


@dataclass
class _Events:
    """What ``events.jsonl`` tells, of the last client (``title``, ``ended``, ``pace``) and of all of them."""

    title: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    last_s: float = 0.0
    sizes: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    failures: dict[Key, dict[str, Any]] = field(default_factory=dict)
    retried: dict[str, int] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def add(self, event: dict[str, Any]) -> None:
        kind, self.last_s = event["event"], event["time_s"]
        if kind == "run-started":
            self.title, self.ended, self.pace = event, False, Pace()
            self.pace.start(self.last_s)
        elif kind == "run-ended":
            self.ended = True
        elif kind == "stage-started":
            # Put last, so that stages stand in the order in which a volume goes through them.
            self.sizes.pop((event["volume"], event["stage"]), None)
            self.sizes[event["volume"], event["stage"]] = event["tasks"], event["voxels"]
        elif kind == "task-finished":
            tasks, voxels = self.sizes.get((event["volume"], event["stage"]), (1, 0))
            self.pace.add(self.last_s, 1, event["seconds"], voxels / max(1, tasks))
        elif kind == "task-failed":
            if event["final"]:
                self.failures[event["volume"], event["stage"], event["number"]] = event
            else:
                self.retried[event["stage"]] = self.retried.get(event["stage"], 0) + 1


@dataclass
class _Done:
    """Tasks of one stage of one volume with a record."""

    numbers: set[int] = field(default_factory=set)
    skipped: int = 0
    task_s: float = 0.0


def read_status(folder: Path, now_s: float) -> RunStatus:
    """Read how far the run of a folder is.

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
    events = _Events()
    for event in _parse(folder / "events.jsonl"):
        events.add(event)
    # A calibration works on more than its inputs, and its parts go through stages of their own.
    volumes = list(events.title.get("volumes") or plan["inputs"])
    done, written = _read_ledger(folder, volumes)
    failed = [key for key in events.failures if key[2] not in done.get(key[:2], _Done()).numbers]
    stages = _stages(volumes, events, done, failed)
    work = [_work(stage) for stage in stages]
    if (folder / "calibration.json").is_file():
        written = set(volumes)
    complete = len(written) == len(volumes) and not failed and any((folder / name).is_file() for name in LAST)
    state: Literal["running", "finished", "stopped", "killed"] = (
        "running" if owner else "killed" if not events.ended else "finished" if complete else "stopped"
    )
    left_s, unknown = time_left_s(work, events.pace.at_once(now_s)) if owner else (None, [])
    return RunStatus(
        folder=str(folder),
        state=state,
        owner=owner,
        workflow=str(events.title.get("workflow") or plan["workflow"].get("name", "")),
        volumes=len(volumes),
        finished=len(written),
        share=1.0 if state == "finished" else share_done(work),
        stages=stages,
        voxels_per_s=events.pace.voxels_per_s(now_s) if owner else None,
        left_s=left_s,
        unknown=unknown,
        quarantined=[Quarantined(*key, *_words(events.failures[key])) for key in failed],
        last_s=events.last_s,
        advice=_advice(state, len(failed), events.title.get("arguments", [])),
    )


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / "ledger" / "plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        plan["inputs"], plan["workflow"]
    except FileNotFoundError as error:
        if owner := lock_owner(folder):
            raise InputError(f"{folder}: {owner} is starting a run here, or its cluster; look again later") from error
        raise InputError(f"{folder}: no run folder ({path} is missing); name the --out of a run") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    return dict(plan)


def _parse(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = read_lines(path)
        yield from map(json.loads, lines)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def _read_ledger(folder: Path, volumes: list[str]) -> tuple[dict[tuple[str, str], _Done], set[str]]:
    """What has a record, by volume and stage; the volumes whose mask is written."""
    done: dict[tuple[str, str], _Done] = {}
    written = set()
    for volume in volumes:
        for record in _parse(folder / "ledger" / f"{volume}.jsonl"):
            one = done.setdefault((volume, record["stage"]), _Done())
            if record["number"] not in one.numbers:
                one.numbers.add(record["number"])
                one.skipped += bool(record.get("skipped"))
                one.task_s += record["seconds"]
            if record.get("last"):
                written.add(volume)
    return done, written


def _stages(
    volumes: list[str], events: _Events, done: dict[tuple[str, str], _Done], failed: list[Key]
) -> list[StageStatus]:
    names = dict.fromkeys([*_order(events), *(stage for _, stage in done)])
    return [_stage(name, len(volumes), events, done, failed) for name in names]


def _order(events: _Events) -> list[str]:
    """Stages as the run's volumes go through them: those to come, and those begun after the one before them."""
    order = list(events.title.get("stages", ()))
    before: dict[str, str] = {}
    for volume, stage in events.sizes:
        if stage not in order:
            order.insert(order.index(before[volume]) + 1 if volume in before else 0, stage)
        before[volume] = stage
    return order


def _stage(
    name: str, volumes: int, events: _Events, done: dict[tuple[str, str], _Done], failed: list[Key]
) -> StageStatus:
    sizes = [tasks for (_, stage), (tasks, _) in events.sizes.items() if stage == name]
    voxels = sum(voxels for (_, stage), (_, voxels) in events.sizes.items() if stage == name)
    found = [one for (_, stage), one in done.items() if stage == name]
    recorded = sum(len(one.numbers) for one in found)
    expected = volumes if events.title.get("stages") else len(sizes)
    return StageStatus(
        name=name,
        done=recorded,
        tasks=max(recorded, round(sum(sizes) / len(sizes) * expected)) if sizes else recorded or None,
        volumes=max(len(sizes), len(found)),
        skipped=sum(one.skipped for one in found),
        retried=events.retried.get(name, 0),
        quarantined=sum(stage == name for _, stage, _ in failed),
        task_s=round(sum(one.task_s for one in found), 3),
        merges=bool(sizes) and voxels == 0,
    )


def _work(stage: StageStatus) -> StageWork:
    left = (stage.tasks or 0) - stage.done - stage.quarantined
    settled, ran = stage.done + stage.quarantined, stage.done - stage.skipped
    return StageWork(stage.name, settled, max(0, left), ran, stage.task_s, stage.tasks is not None)


def _words(failure: dict[str, Any]) -> tuple[str, str]:
    return failure["place"], str(failure["message"]).partition("\n")[0]


def _advice(state: str, quarantined: int, arguments: list[str]) -> str:
    if state == "finished":
        return "nothing is left to do"
    if state == "running" and not quarantined:
        return "wait for it"
    again = "the command of the run with --resume"
    if arguments[:1] in (["run"], ["calibrate"]):
        kept = [one for one in arguments if one not in ("--overwrite", "--resume")]
        again = f"nx47dask {shlex.join(kept)} --resume"
    before = "wait for its end, " if state == "running" else ""
    return f"{before}{'mend what the errors name, ' * bool(quarantined)}then: {again}".removeprefix("then: ")

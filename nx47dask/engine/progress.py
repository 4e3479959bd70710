"""Progress of a run for a person to follow: one line per stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from nx47dask.engine.events import Observer
from nx47dask.engine.ledger import Record
from nx47dask.engine.tasks import Batch, Failure

__all__ = ["PlainProgress", "RichProgress", "progress_for"]

SECONDS_BETWEEN_LINES = 10.0


def progress_for(console: Console, volumes: int) -> RichProgress | PlainProgress:
    """Return live lines on a terminal, plain lines elsewhere."""
    return RichProgress(console, volumes) if console.is_terminal else PlainProgress(partial(_print, console), volumes)


def _print(console: Console, line: str, style: str | None = None) -> None:
    """Print a line unchanged: brackets of boxes and paths are no markup, and lines of a log are not wrapped."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _words(failure: Failure) -> str:
    return f"{'failed' if failure.final else 'again'}: {failure.message}"


def human_rate(voxels_per_s: float) -> str:
    """Format a rate, such as ``12.3 Mvox/s``."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if voxels_per_s >= scale:
            return f"{voxels_per_s / scale:.1f} {unit}vox/s"
    return f"{voxels_per_s:.0f} vox/s"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(human_rate(speed) if speed else "", style="progress.data.speed")


class RichProgress(Observer):
    """Live lines for a terminal, one per stage over all volumes, with voxels per second and the remaining time."""

    def __init__(self, console: Console, volumes: int) -> None:
        self.volumes = volumes
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[entered]}/{task.fields[volumes]} volumes"),
            _Rate(),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=60,
        )
        self._lines: dict[str, TaskID] = {}
        self._entered: dict[str, int] = {}
        self._total: dict[str, int] = {}

    def __enter__(self) -> RichProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage_started(self, volume: str, batch: Batch) -> None:
        stage, voxels = batch.stage, batch.voxels
        if voxels == 0:  # a merge, too short for a line
            return
        if stage not in self._lines:
            self._lines[stage] = self._progress.add_task(stage, total=0, entered=0, volumes=self.volumes)
        self._entered[stage] = self._entered.get(stage, 0) + 1
        self._total[stage] = self._total.get(stage, 0) + voxels
        # Later volumes are taken to be as large as those so far, so that bar and remaining time are of the whole run.
        expected = self._total[stage] * self.volumes // self._entered[stage]
        self._progress.update(self._lines[stage], total=expected, entered=self._entered[stage])

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        if record["stage"] in self._lines:
            self._progress.advance(self._lines[record["stage"]], voxels)

    def task_failed(self, volume: str, failure: Failure) -> None:
        _print(self._progress.console, _words(failure), "red" if failure.final else "yellow")


class PlainProgress(Observer):
    """Plain lines for logs: one at the end of a stage of a volume, and one every ten seconds in between."""

    def __init__(self, write: Callable[[str], None], volumes: int) -> None:
        self._write = write
        self._started: dict[tuple[str, str], float] = {}
        self._voxels: dict[tuple[str, str], list[int]] = {}
        self._last = time.monotonic()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: there is nothing to stop."""

    def stage_started(self, volume: str, batch: Batch) -> None:
        self._started[volume, batch.stage] = time.monotonic()
        self._voxels[volume, batch.stage] = [0, batch.voxels, 0]

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        key = (volume, record["stage"])
        done = self._voxels[key]
        done[0] += voxels
        done[2] += 0 if resumed or record.get("skipped") else voxels
        if done[1] and time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._line(key)

    def stage_finished(self, volume: str, stage: str) -> None:
        if self._voxels[volume, stage][1]:  # a merge covers no voxels and is over at once
            self._line((volume, stage))

    def task_failed(self, volume: str, failure: Failure) -> None:
        self._write(_words(failure))

    def _line(self, key: tuple[str, str]) -> None:
        self._last = time.monotonic()
        elapsed = self._last - self._started[key]
        done, total, fresh = self._voxels[key]
        rate = fresh / elapsed if elapsed > 0 else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        share = f"{100 * done / total:.0f} %"
        speed = f"  {human_rate(rate)}" if fresh else ""
        self._write(f"{key[0]}  {key[1]:<12} {share:>5}{speed}{left}")

"""The command status."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from nx47dask.runs.status import RunStatus

__all__ = ["commands"]

commands = typer.Typer()

SECONDS_BETWEEN_LOOKS = 2.0
QUARANTINED_SHOWN = 10
COUNTS = ("skipped", "retried", "quarantined")


@commands.command()
def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder or its s3:// URL.", show_default=False)],
    json_file: JsonFile = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds while it runs.")] = False,
) -> None:
    """How far a run is and what failed, alive or dead."""
    from rich.console import Console
    from rich.live import Live

    from nx47dask.files.paths import locate
    from nx47dask.runs.status import read_status

    console, folder = Console(), locate(run)
    found = read_status(folder, time.time())
    quiet = json_file == STANDARD_OUTPUT
    if watch and not quiet:
        with Live(_shown(found), console=console, auto_refresh=False, transient=True) as live:
            while found.state == "running":
                time.sleep(SECONDS_BETWEEN_LOOKS)
                found = read_status(folder, time.time())
                live.update(_shown(found), refresh=True)
    write_json(found.record(), json_file)
    if not quiet:
        console.print(_shown(found))


def _shown(found: RunStatus) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(line, overflow="fold") for line in _head(found)]
    if found.stages:
        parts.append(_table(found))
    parts += [Text(line, overflow="fold") for line in [*_quarantined(found), f"next: {found.advice}"]]
    return Group(*parts)


def _head(found: RunStatus) -> list[str]:
    states = {
        "running": f"running, {found.owner}",
        "finished": "finished",
        "stopped": "stopped before it was complete; nobody is working on it",
        "killed": "killed or cut off: its last client did not end by itself; nobody is working on it",
    }
    done = f"{found.finished} of {found.volumes} volumes finished; {100 * found.share:.0f} % of the work is done"
    lines = [found.folder, states[found.state], f"workflow {found.workflow}; {done}"]
    if found.state == "running":
        lines.append(_speed(found))
    return lines


def _speed(found: RunStatus) -> str:
    from nx47dask.engine.progress import human_rate
    from nx47dask.words import duration

    left = "time left not known yet" if found.left_s is None else f"{duration(found.left_s)} left"
    if found.left_s is not None and found.unknown:
        left = f"at least {left} (without {', '.join(found.unknown)})"
    return ", ".join([*([human_rate(found.voxels_per_s)] if found.voxels_per_s else []), left])


def _table(found: RunStatus) -> Table:
    """A line per stage over voxels; what unites their results only where something is or went wrong."""
    from rich import box
    from rich.table import Table

    from nx47dask.words import duration

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", overflow="fold")
    counted = [name for name in COUNTS if any(getattr(stage, name) for stage in found.stages)]
    for title in ("done", "tasks", "a task", *counted):
        table.add_column(title, justify="right")
    for stage in found.stages:
        if stage.merges and not (stage.retried or stage.quarantined):
            continue
        ran = stage.done - stage.skipped
        table.add_row(
            stage.name,
            f"{100 * stage.done // stage.tasks} %" if stage.tasks else "",
            f"{stage.done:,} of {stage.tasks:,}" if stage.tasks else "not begun",
            duration(stage.task_s / ran) if ran else "",
            *(f"{getattr(stage, name):,}" if getattr(stage, name) else "" for name in counted),
        )
    return table


def _quarantined(found: RunStatus) -> list[str]:
    shown = found.quarantined[:QUARANTINED_SHOWN]
    lines = [f"quarantined: {one.volume}, {one.stage}, {one.place}\n  {one.message}" for one in shown]
    left = len(found.quarantined) - len(shown)
    return [*lines, f"and {left} more quarantined; --json has them all"] if left else lines

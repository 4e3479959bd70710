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
    """Show the progress and the failures of a run, while it runs and later."""
    from rich.console import Console
    from rich.live import Live

    from nx47dask.files.paths import locate
    from nx47dask.runs.status import read_status

    console, folder = Console(), locate(run)
    progress = read_status(folder, time.time())
    quiet = json_file == STANDARD_OUTPUT
    if watch and not quiet:
        with Live(_shown(progress), console=console, auto_refresh=False, transient=True) as live:
            while progress.state == "running":
                time.sleep(SECONDS_BETWEEN_LOOKS)
                progress = read_status(folder, time.time())
                live.update(_shown(progress), refresh=True)
    write_json(progress.record(), json_file)
    if not quiet:
        console.print(_shown(progress))


def _shown(progress: RunStatus) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(line, overflow="fold") for line in _head(progress)]
    if progress.stages:
        parts.append(_table(progress))
    parts += [Text(line, overflow="fold") for line in [*_quarantined(progress), f"next: {progress.advice}"]]
    return Group(*parts)


def _head(progress: RunStatus) -> list[str]:
    states = {
        "running": f"running, {progress.owner}",
        "finished": "finished",
        "stopped": "stopped before it was complete; nobody is working on it",
        "killed": "killed or cut off: its last client did not end by itself; nobody is working on it",
    }
    done = (
        f"{progress.finished} of {progress.volumes} volumes finished; {100 * progress.share:.0f} % of the work is done"
    )
    lines = [progress.folder, states[progress.state], f"workflow {progress.workflow}; {done}"]
    if progress.state == "running":
        lines.append(_speed(progress))
    return lines


def _speed(progress: RunStatus) -> str:
    from nx47dask.engine.progress import human_rate
    from nx47dask.words import duration

    left = "time left not known yet" if progress.left_s is None else f"{duration(progress.left_s)} left"
    if progress.left_s is not None and progress.unknown:
        left = f"at least {left} (without {', '.join(progress.unknown)})"
    return ", ".join([*([human_rate(progress.voxels_per_s)] if progress.voxels_per_s else []), left])


def _table(progress: RunStatus) -> Table:
    """Make a row for each stage over voxels, and for stages that merge results only if they had failures."""
    from rich import box
    from rich.table import Table

    from nx47dask.words import duration

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", overflow="fold")
    counted = [name for name in COUNTS if any(getattr(stage, name) for stage in progress.stages)]
    for title in ("done", "tasks", "a task", *counted):
        table.add_column(title, justify="right")
    for stage in progress.stages:
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


def _quarantined(progress: RunStatus) -> list[str]:
    shown = progress.quarantined[:QUARANTINED_SHOWN]
    lines = [f"quarantined: {block.volume}, {block.stage}, {block.place}\n  {block.message}" for block in shown]
    left = len(progress.quarantined) - len(shown)
    return [*lines, f"and {left} more quarantined; --json has them all"] if left else lines

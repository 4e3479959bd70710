"""Commands for the cluster: cluster check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json
from nx47dask.errors import ClusterError

if TYPE_CHECKING:
    from rich.table import Table

    from nx47dask.cluster.check import Check, WorkerReport

__all__ = ["commands"]

commands = typer.Typer(name="cluster", help="The cluster that runs go to.")

NAMES_SHOWN = 4


@commands.callback()
def cluster() -> None:
    """Keep `check` a command of its own: typer drops the name of a lone command."""


@commands.command()
def check(
    source: Annotated[
        str | None,
        typer.Argument(metavar="FILE|ADDRESS", help="As --cluster of run.", show_default=False),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Worker processes to start.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="URL", help="A path or URL to read; repeatable.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="URL", help="A folder or URL to write to.")] = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to wait for the workers.")] = "5m",
    json_path: JsonFile = None,
) -> None:
    """Start or reach the cluster and look at every worker; exit code 2 when a run would fail on it."""
    from dataclasses import asdict

    from nx47dask.cluster.check import check_cluster
    from nx47dask.cluster.spec import read_cluster
    from nx47dask.engine.deadline import parse_duration

    spec = read_cluster(source, workers)
    outcome = check_cluster(spec, inputs or [], out, parse_duration(timeout))
    if json_path is not None:
        write_json({"kind": spec.kind, **asdict(outcome)}, json_path)
    if json_path != STANDARD_OUTPUT:
        _show(outcome)
    if outcome.problems:
        raise ClusterError(_sentences(outcome))
    if json_path != STANDARD_OUTPUT:
        places = [*(f"reads {name}" for name in inputs or []), *([f"writes {out}"] if out else [])]
        typer.echo(", ".join(["ok: every worker has the client's releases", *places]))


def _show(outcome: Check) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(outcome))
    versions = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    console.print(f"client: {versions}", highlight=False)


def _table(outcome: Check) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("worker", "host"):
        table.add_column(title, overflow="fold")
    for title in ("threads", "memory", "disk free"):
        table.add_column(title, justify="right")
    for title in ("GPU", "versions"):
        table.add_column(title, overflow="fold")
    for worker in outcome.workers:
        table.add_row(*_row(worker))
    return table


def _row(worker: WorkerReport) -> tuple[str, ...]:
    gpus = [" ".join(filter(None, (gpu.name or gpu.identifier, _size(gpu.memory_bytes)))) for gpu in worker.gpus]
    different = ", ".join(f"{name} {version}" for name, version in worker.differences.items())
    return (
        worker.name,
        worker.host,
        str(worker.threads),
        _size(worker.memory_limit_bytes) or "no limit",
        _size(worker.disk_free_bytes) or "?",
        ", ".join(gpus) or "none" if worker.answered else "?",
        different or "same" if worker.answered else "?",
    )


def _size(count_bytes: int) -> str:
    """Write a size in words; nothing for 0 or None."""
    from nx47dask.words import size

    return size(count_bytes) if count_bytes else ""


def _sentences(outcome: Check) -> str:
    """List each problem on a line of its own, with the workers that have it."""
    lines = []
    for problem, names in outcome.problems.items():
        shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
        who = f" ({len(names)} of {len(outcome.workers)} workers: {shown})" if names else ""
        lines.append(f"{problem}{who}")
    return "\n  ".join(["a run would fail here:", *lines])

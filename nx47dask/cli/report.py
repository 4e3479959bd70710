"""The command report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nx47dask.cli.baselines import Baselines

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="NAME|DIR", help="A baseline or run to measure against, if not that of run."
        ),
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option("--gate", metavar="GATES", help="Such as score>=0,recall>=-0.01: limits on mean differences."),
    ] = None,
    baselines: Baselines = Path("baselines"),
) -> None:
    """Write report.html and report.md of a run again; exit code 4 when a gate fails."""
    from nx47dask.commands.report import report as write_again
    from nx47dask.runs.gates import require_passed
    from nx47dask.runs.run import open_run

    candidate = open_run(run)
    results = write_again(candidate, baseline=baseline, gates=gate, baselines=baselines)
    for line in [*map(str, results), candidate.path / "report.html", candidate.path / "report.md"]:
        typer.echo(line)
    require_passed(results)

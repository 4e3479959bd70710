"""The command report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nx47dask.cli.baselines import Baselines
from nx47dask.errors import InputError

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
    from nx47dask.report.write import write_report
    from nx47dask.runs.baselines import find_run, is_frozen
    from nx47dask.runs.gates import require_passed
    from nx47dask.runs.run import open_run

    candidate = open_run(run)
    if is_frozen(candidate):
        raise InputError(f"{run}: a baseline is not written again", hint=f"give the run, with --baseline {run}")
    before = find_run(baseline, baselines) if baseline is not None else None
    results = write_report(candidate, baseline=before, gates=gate)
    for line in [*map(str, results), candidate.path / "report.html", candidate.path / "report.md"]:
        typer.echo(line)
    require_passed(results)

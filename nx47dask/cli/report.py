"""The command report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nx47dask.errors import InputError

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)],
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="NAME|DIR", help="A baseline or another run to measure against.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option("--gate", metavar="GATES", help="Such as score>=0,recall>=-0.01: limits on mean differences."),
    ] = None,
    baselines: Annotated[
        Path, typer.Option("--baselines", metavar="DIR", help="Folder of the frozen baselines.")
    ] = Path("baselines"),
) -> None:
    """Write report.html and report.md of a run again; exit code 4 when a gate fails."""
    if gate is not None and baseline is None:
        raise InputError(f"--gate {gate}: a gate limits a difference; give --baseline NAME|DIR too")
    from nx47dask.baselines import find_run, is_frozen
    from nx47dask.gates import require_passed
    from nx47dask.report.content import checked_gates
    from nx47dask.report.write import write_report
    from nx47dask.results import open_run

    candidate = open_run(run)
    if is_frozen(candidate):
        raise InputError(f"{run}: a baseline is not written again; give the run, with --baseline {run}")
    before = find_run(baseline, baselines) if baseline is not None else None
    results = checked_gates(candidate, before, gate) if before and gate is not None else []
    write_report(candidate, baseline=before, gates=results)
    for line in [*map(str, results), candidate.path / "report.html", candidate.path / "report.md"]:
        typer.echo(line)
    require_passed(results)

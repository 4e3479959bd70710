"""Commands for baselines and campaigns: freeze, verify, record-score, campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["commands"]

commands = typer.Typer()

Baselines = Annotated[Path, typer.Option("--baselines", metavar="DIR", help="Folder of the frozen baselines.")]
RunOrBaseline = Annotated[
    str, typer.Argument(metavar="RUN|NAME", help="A run folder, or a baseline.", show_default=False)
]


@commands.command()
def freeze(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name of the baseline, such as v61.1.", show_default=False)],
    baselines: Baselines = Path("baselines"),
) -> None:
    """Freeze a run as a baseline: masks, metrics, manifest, workflow and the SHA-256 of each; never overwritten."""
    from nx47dask.runs.baselines import freeze as freeze_run
    from nx47dask.runs.run import open_run

    typer.echo(freeze_run(open_run(run), name, baselines))


@commands.command()
def verify(
    baseline: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A baseline by name, or its folder, or a run folder.")
    ],
    baselines: Baselines = Path("baselines"),
) -> None:
    """Compute the checksums of a baseline or of a run again; exit code 4 and a list when anything differs."""
    from nx47dask.runs.baselines import find_folder
    from nx47dask.runs.baselines import verify as verify_folder

    folder = find_folder(baseline, baselines)
    typer.echo(f"{folder}: {verify_folder(folder)} files unchanged")


@commands.command("record-score")
def record_score(
    run: RunOrBaseline,
    public: Annotated[float | None, typer.Option("--public", help="Public score, 0 to 1.")] = None,
    private: Annotated[float | None, typer.Option("--private", help="Private score, 0 to 1.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="Where it comes from, for instance.")] = None,
    baselines: Baselines = Path("baselines"),
) -> None:
    """Record a score that was measured elsewhere; the report of a run is written again, later reports show it."""
    from nx47dask.report.write import write_report
    from nx47dask.runs.baselines import find_run, is_frozen
    from nx47dask.runs.baselines import record_score as record

    found = find_run(run, baselines)
    typer.echo(record(found.path, public=public, private=private, note=note))
    if not is_frozen(found):
        write_report(found)
        typer.echo(found.path / "report.html")


@commands.command()
def campaign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The campaign, YAML.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of runs and tables. [default: runs/<FILE's name>]"),
    ] = None,
    baselines: Baselines = Path("baselines"),
    cluster: Annotated[str | None, typer.Option("--cluster", metavar="FILE|ADDRESS", help="As for run.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Worker processes to start.")] = None,
    serial: Annotated[bool, typer.Option("--serial", help="No cluster.")] = False,
) -> None:
    """Run several workflows on the same volumes and compare all with a baseline; goes on where it stopped."""
    from nx47dask.commands.campaign import run_campaign
    from nx47dask.report.campaign import FILES, verdict

    folder = out or Path("runs") / file.stem
    summary = run_campaign(file, folder, baselines=baselines, cluster=cluster, workers=workers, serial=serial)
    typer.echo(verdict(summary))
    for name in FILES:
        typer.echo(folder / name)

"""Commands for baselines and campaigns: freeze, verify, record-score, campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nx47dask.cli.main_job import Cluster, Serial, Workers

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
    from nx47dask.commands.freeze import freeze as freeze_run

    typer.echo(freeze_run(run, name, baselines))


@commands.command()
def verify(
    baseline: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A baseline by name, or its folder, or a run folder.")
    ],
    baselines: Baselines = Path("baselines"),
) -> None:
    """Compute the checksums of a baseline or of a run again; exit code 4 and a list when anything differs."""
    from nx47dask.commands.verify import verify as verify_folder
    from nx47dask.runs.baselines import find_folder

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
    from nx47dask.commands.record_score import record_score as record

    for path in record(run, public=public, private=private, note=note, baselines=baselines):
        typer.echo(path)


@commands.command()
def campaign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The campaign, YAML.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of runs and tables. [default: runs/<FILE's name>]"),
    ] = None,
    baselines: Baselines = Path("baselines"),
    cluster: Cluster = None,
    workers: Workers = None,
    serial: Serial = False,
) -> None:
    """Run several workflows on the same volumes and compare all with a baseline; goes on where it stopped."""
    from nx47dask.commands.campaign import campaign as run_all
    from nx47dask.reports.campaign import FILES, verdict

    folder = out or Path("runs") / file.stem
    summary = run_all(file, folder, baselines=baselines, cluster=cluster, workers=workers, serial=serial)
    typer.echo(verdict(summary))
    for name in FILES:
        typer.echo(folder / name)

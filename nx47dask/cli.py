"""The command line. Heavy libraries load when a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from nx47dask import __version__
from nx47dask.errors import InputError, Nx47Error

__all__ = ["app", "main"]

INTERRUPTED = 130
DEBUG = "--debug"

app = typer.Typer(
    help="Surface masks of rolled papyri from micro-CT volumes of any size, on any Dask cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="Multipage TIFFs, folders of them, folders of single-slice TIFFs, Zarr arrays, OME-Zarr groups.",
        show_default=False,
    ),
]
WorkflowName = Annotated[str, typer.Option("--workflow", help="A preset (v61.1, v61.2, fast) or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. postprocess.hysteresis.high=0.9; repeatable."),
]
BlockEdge = Annotated[int | None, typer.Option("--block", metavar="N", help="Edge of a work block in voxels.")]
BBox = Annotated[
    str | None, typer.Option("--bbox", metavar="z0:z1,y0:y1,x0:x1", help="Only this part; half-open, global voxels.")
]
Foreground = Annotated[int, typer.Option("--foreground", help="Value of the surface in masks: 255 or 1.")]
Level = Annotated[int, typer.Option("--level", min=0, help="Resolution level of OME-Zarr inputs.")]


@app.command()
def run(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder.", show_default=False)],
    workflow: WorkflowName = "v61.2",
    overrides: Overrides = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="FILE|ADDRESS",
            help="YAML file, tcp://HOST:PORT or scheduler file. Default: cluster.yaml here, else a local cluster.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Workers of a local cluster.")] = None,
    block: BlockEdge = None,
    bbox: BBox = None,
    level: Level = 0,
    foreground: Foreground = 255,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in --out and start anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; do nothing.")] = False,
    serial: Annotated[bool, typer.Option("--serial", help="No cluster: one task after the other, here.")] = False,
) -> None:
    """Turn volumes into binary surface masks, a submission zip, metrics and a report."""
    if dry_run:
        plan(inputs, workflow, overrides, out, block, bbox, level, foreground)
        return
    from nx47dask.stages.run import run as run_job

    done = run_job(
        inputs,
        out,
        workflow=workflow,
        overrides=overrides or (),
        cluster=cluster,
        workers=workers,
        serial=serial,
        block=block,
        bbox=bbox,
        level=level,
        foreground=foreground,
        resume=resume,
        overwrite=overwrite,
    )
    for name in ("masks", "submission.zip", "metrics/volumes.json", "report.html"):
        if (done.path / name).exists():
            typer.echo(done.path / name)


@app.command()
def plan(
    inputs: Inputs,
    workflow: WorkflowName = "v61.2",
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder of the run to plan.")] = Path("run"),
    block: BlockEdge = None,
    bbox: BBox = None,
    level: Level = 0,
    foreground: Foreground = 255,
) -> None:
    """Show what a run would do: passes, blocks, halo redundancy, memory, disk. Nothing is computed or written."""
    from nx47dask.stages.run import plan as make_plan

    planned = make_plan(
        inputs,
        out,
        workflow=workflow,
        overrides=overrides or (),
        block=block,
        bbox=bbox,
        level=level,
        foreground=foreground,
    )
    for line in planned.lines():
        typer.echo(line)


@app.command()
def ingest(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for <id>.zarr.", show_default=False)],
    cluster: Annotated[str | None, typer.Option("--cluster", metavar="FILE|ADDRESS", help="As for run.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Workers of a local cluster.")] = None,
    block: BlockEdge = None,
    level: Level = 0,
    ome_version: Annotated[
        str, typer.Option("--ome-version", help="0.5 (Zarr v3, sharded) or 0.4 (Zarr v2), for older viewers.")
    ] = "0.5",
    serial: Annotated[bool, typer.Option("--serial", help="No cluster.")] = False,
) -> None:
    """Convert volumes to chunked OME-Zarr and print their grey statistics."""
    from nx47dask.stages.convert import ingest_volumes

    if ome_version not in ("0.4", "0.5"):
        raise InputError(f"--ome-version {ome_version}: 0.5 and 0.4 are known")
    measured = ingest_volumes(
        inputs,
        out,
        cluster=cluster,
        workers=workers,
        block=block,
        level=level,
        serial=serial,
        zarr_format=3 if ome_version == "0.5" else 2,
    )
    for path, scan in measured.items():
        typer.echo(f"{path}  minimum {scan.minimum}  maximum {scan.maximum}  mean {scan.mean:.2f}  std {scan.std:.2f}")


@app.command()
def phantom(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the volumes.", show_default=False)],
    shape: Annotated[str, typer.Option("--shape", metavar="Z,Y,X", help="Shape in voxels.")] = "256,256,256",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same volume.")] = 0,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of volumes, of consecutive seeds.")] = 1,
) -> None:
    """Make labelled synthetic scroll CT in the competition's layout: train_images/, train_labels/, train.csv."""
    from nx47dask.phantom import write_phantom

    try:
        z, y, x = (int(part) for part in shape.split(","))
    except ValueError as error:
        raise InputError(f"--shape {shape!r}: expected three whole numbers Z,Y,X") from error
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        line = shown.add_task("phantom")
        ids = write_phantom(
            out,
            (z, y, x),
            seed,
            count=count,
            progress=lambda done, total: shown.update(line, completed=done, total=total),
        )
    for volume in ids:
        typer.echo(out / "train_images" / f"{volume}.tif")


@app.command("steps")
def list_steps() -> None:
    """List detectors and post-processing steps with their parameters, defaults and limits."""
    from nx47dask.reference import reference_text

    typer.echo(reference_text())


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Options of every command."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    0 done; 1 internal error; 2 bad input or usage; 3 stopped part-way and resumable; 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        # --debug is for whoever has just seen an error, so it may stand anywhere on the line.
        app(args=[argument for argument in given if argument != DEBUG], standalone_mode=True)
    except Nx47Error as error:
        if DEBUG in given:
            traceback.print_exception(error)
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's, for a KeyboardInterrupt
            typer.echo("interrupted; go on with --resume", err=True)
        raise


def _interrupt(number: int, frame: FrameType | None) -> Any:
    """A batch system's SIGTERM ends a run like Ctrl-C does: resumable."""
    raise KeyboardInterrupt

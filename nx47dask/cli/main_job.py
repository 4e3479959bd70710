"""Commands of the main job: run, plan, ingest, phantom, steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nx47dask.errors import InputError

__all__ = ["commands"]

commands = typer.Typer()

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


@commands.command()
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


@commands.command()
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


@commands.command()
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


@commands.command()
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


@commands.command("steps")
def list_steps() -> None:
    """List detectors and post-processing steps with their parameters, defaults and limits."""
    from nx47dask.reference import reference_text

    typer.echo(reference_text())

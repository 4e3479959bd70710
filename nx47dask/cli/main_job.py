"""Commands of the main job: run, plan, ingest, phantom, steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json
from nx47dask.errors import InputError
from nx47dask.files.presets import preset_names

if TYPE_CHECKING:
    from nx47dask.planning.plan import RunPlan
    from nx47dask.planning.projection import Estimate

__all__ = ["commands"]

commands = typer.Typer()

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Multipage TIFFs, folders of them, folders of single-slice TIFFs, Zarr arrays, OME-Zarr groups; "
        "paths, s3:// or http(s):// URLs.",
        show_default=False,
    ),
]
WorkflowName = Annotated[
    str, typer.Option("--workflow", help=f"A preset ({', '.join(preset_names())}) or a YAML file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. postprocess.hysteresis.high=0.9; repeatable."),
]
BlockEdge = Annotated[int | None, typer.Option("--block", metavar="N", help="Edge of a work block in voxels.")]
BBox = Annotated[
    str | None, typer.Option("--bbox", metavar="z0:z1,y0:y1,x0:x1", help="Only this part; half-open, global voxels.")
]
Foreground = Annotated[int, typer.Option("--foreground", help="Value of the surface in masks: 255 or 1.")]
DeleteStores = Annotated[
    bool | None,
    typer.Option(
        "--delete-stores/--keep-stores", help="Delete a volume's store when its mask is written.", show_default=False
    ),
]
CopyInput = Annotated[
    bool | None,
    typer.Option(
        "--copy-input/--read-in-place",
        help="Copy Zarr inputs to the run's store, so that each chunk is read once. Default: only remote ones.",
        show_default=False,
    ),
]
Level = Annotated[int, typer.Option("--level", min=0, help="Resolution level of OME-Zarr inputs.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="FILE|ADDRESS",
        help="YAML file, tcp://HOST:PORT or scheduler file. Default: NX47DASK_CLUSTER, cluster.yaml here, else local.",
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Worker processes to start.")]
Submission = Annotated[
    Path | None, typer.Option("--submission", metavar="FILE", help="Where a copy of submission.zip goes.")
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        help="End in time with what is done: 8h30m, 45m, 90s. An unfinished volume has an empty mask in the zip.",
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="kaggle: --submission /kaggle/working/submission.zip --delete-stores --time-limit 8h30m.",
    ),
]

Serial = Annotated[bool, typer.Option("--serial", help="No cluster: one task after the other, here.")]
LabelsFolder = Annotated[
    str | None, typer.Option("--labels", metavar="DIR", help="Labels of the volumes, to score the masks against.")
]
Baseline = Annotated[
    str | None, typer.Option("--baseline", metavar="NAME|DIR", help="What the report compares the run with.")
]
Gates = Annotated[
    str | None,
    typer.Option("--gate", metavar="RULES", help="Exit with 4 if the run is worse: score>=0,recall>=-0.01."),
]

PROFILES: dict[str, dict[str, Any]] = {
    "kaggle": {"submission": Path("/kaggle/working/submission.zip"), "delete_stores": True, "time_limit": "8h30m"},
}
"""Named defaults of options of ``run``."""


@commands.command()
def run(
    inputs: Inputs,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Run folder, or s3:// URL.", show_default=False)],
    workflow: WorkflowName = "surface",
    overrides: Overrides = None,
    cluster: Cluster = None,
    workers: Workers = None,
    block: BlockEdge = None,
    bbox: BBox = None,
    level: Level = 0,
    foreground: Foreground = 255,
    labels: LabelsFolder = None,
    baseline: Baseline = None,
    gates: Gates = None,
    submission: Submission = None,
    delete_stores: DeleteStores = None,
    copy_input: CopyInput = None,
    time_limit: TimeLimit = None,
    profile: ProfileName = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in --out and start anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; do nothing.")] = False,
    serial: Serial = False,
) -> None:
    """Turn volumes into binary surface masks, a submission zip, metrics and a report."""
    from nx47dask.commands.plan import plan as make_plan
    from nx47dask.commands.run import run as run_job

    bounds = _bounds(profile, submission, delete_stores, time_limit)
    planned: dict[str, Any] = {
        "workflow": workflow,
        "overrides": overrides or (),
        "block": block,
        "bbox": bbox,
        "level": level,
        "foreground": foreground,
        "delete_stores": bounds.pop("delete_stores"),
        "copy_input": copy_input,
        "labels": labels,
        "cluster": cluster,
        "workers": workers,
        "serial": serial,
    }
    if dry_run:
        _show_plan(make_plan(inputs, out, **planned))
        return
    done = run_job(inputs, out, **planned, **bounds, baseline=baseline, gates=gates, resume=resume, overwrite=overwrite)
    _name_results(done.path)


def _name_results(folder: Path) -> None:
    for name in ("masks", "submission.zip", "metrics/volumes.json", "report.html"):
        if (folder / name).exists():
            typer.echo(folder / name)


def _bounds(
    profile: str | None, submission: Path | None, delete_stores: bool | None, time_limit: str | None
) -> dict[str, Any]:
    """Choose arguments of ``run``: those that were given, else those of the profile."""
    from nx47dask.engine.deadline import parse_duration

    if profile is not None and profile not in PROFILES:
        raise InputError(f"--profile {profile}: known is {', '.join(PROFILES)}")
    defaults = PROFILES.get(profile or "", {})
    limit = time_limit or defaults.get("time_limit")
    return {
        "submission": submission or defaults.get("submission"),
        "delete_stores": defaults.get("delete_stores", False) if delete_stores is None else delete_stores,
        "time_limit_s": math.inf if limit is None else parse_duration(limit),
    }


@commands.command()
def plan(
    inputs: Inputs,
    workflow: WorkflowName = "surface",
    overrides: Overrides = None,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Run folder of the run to plan.")] = "run",
    block: BlockEdge = None,
    bbox: BBox = None,
    level: Level = 0,
    foreground: Foreground = 255,
    delete_stores: DeleteStores = None,
    copy_input: CopyInput = None,
    labels: LabelsFolder = None,
    cluster: Cluster = None,
    workers: Workers = None,
    serial: Serial = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Run a small piece of the first volume to estimate the time.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Show what a run would do and take: blocks, halos, tasks, memory, disk, time. Nothing is written."""
    from nx47dask.cluster.where import Where
    from nx47dask.commands.plan import plan as make_plan

    where = Where.of(cluster=cluster, workers=workers, serial=serial)
    planned = make_plan(
        inputs,
        out,
        workflow=workflow,
        overrides=overrides or (),
        block=block,
        bbox=bbox,
        level=level,
        foreground=foreground,
        delete_stores=bool(delete_stores),
        copy_input=copy_input,
        labels=labels,
        where=where,
    )
    estimate = None
    if calibrate:
        from nx47dask.commands.estimate import estimate as estimate_run

        estimate = estimate_run(planned, labels=labels, where=where)
    _show_plan(planned, estimate, json_file)


def _show_plan(planned: RunPlan, estimate: Estimate | None = None, json_file: str | None = None) -> None:
    """Print what a run will take, or write it as JSON."""
    from nx47dask.planning.projection import project
    from nx47dask.planning.text import plan_json, plan_lines

    projection = project(planned)
    if json_file != STANDARD_OUTPUT:
        for line in plan_lines(planned, projection, estimate):
            typer.echo(line)
    if json_file:
        write_json(plan_json(planned, projection, estimate), json_file)


@commands.command()
def ingest(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for <id>.zarr.", show_default=False)],
    cluster: Cluster = None,
    workers: Workers = None,
    block: BlockEdge = None,
    level: Level = 0,
    ome_version: Annotated[
        str, typer.Option("--ome-version", help="0.5 (Zarr v3, sharded) or 0.4 (Zarr v2), for older viewers.")
    ] = "0.5",
    serial: Serial = False,
) -> None:
    """Convert volumes to chunked OME-Zarr and print their grey statistics."""
    from nx47dask.commands.ingest import ingest as ingest_all

    if ome_version not in ("0.4", "0.5"):
        raise InputError(f"--ome-version {ome_version}: 0.5 and 0.4 are known")
    measured = ingest_all(
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
    from nx47dask.phantom.write import write_phantom

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
    """List detectors and post-processing steps: what each parameter is for, its default, limits and unit.

    A terminal shows tables of its width; a file gets Markdown.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from nx47dask.cli.reference import reference_text

    console = Console()
    if console.is_terminal:
        console.print(Markdown(reference_text()))
    else:
        typer.echo(reference_text())

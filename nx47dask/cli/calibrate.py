"""The command calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nx47dask.cli.main_job import Cluster, Inputs, Serial
from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def calibrate(
    images: Inputs,
    labels: Annotated[str, typer.Option("--labels", metavar="DIR", help="Labels of the volumes.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.", show_default=False)],
    workflow: Annotated[
        str, typer.Option("--workflow", help="Preset or YAML file whose parameters are searched.")
    ] = "v61.2",
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="FILE", help="YAML file of keys and ranges. Default: by its steps."),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=2, help="Of each search: one for all, one for each fold.")
    ] = 48,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same results.")] = 0,
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="NAME|DIR", help="What must be beaten: a workflow, or a finished run.")
    ] = "v61.1",
    recall_loss: Annotated[
        float, typer.Option("--recall-loss", help="How far the recall of a volume may fall below the baseline's.")
    ] = 0.05,
    time_limit: Annotated[
        str | None, typer.Option("--time-limit", metavar="TIME", help="No new trials after 70 % of it: 2h, 45m, 90s.")
    ] = None,
    cluster: Cluster = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "--jobs", min=1, help="Worker processes to start.")
    ] = None,
    serial: Serial = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the calibration in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the calibration in --out first.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Find the parameters that score best on labelled volumes; exit code 4 if none is better on volumes left out."""
    import math

    from nx47dask.calibration.calibrate import calibrate as search
    from nx47dask.engine.deadline import parse_duration
    from nx47dask.errors import GateError
    from nx47dask.reports.calibration.page import summary

    findings = search(
        images,
        labels,
        out,
        workflow=workflow,
        space=space,
        trials=trials,
        seed=seed,
        baseline=baseline,
        recall_loss=recall_loss,
        time_limit_s=math.inf if time_limit is None else parse_duration(time_limit),
        cluster=cluster,
        workers=workers,
        serial=serial,
        resume=resume,
        overwrite=overwrite,
    )
    write_json(findings, json_file)
    if json_file != STANDARD_OUTPUT:
        for line in [
            *summary(findings),
            out / ("best.yaml" if findings["promoted"] else "candidate.yaml"),
            out / "calibration.html",
        ]:
            typer.echo(line)
    if not findings["promoted"]:
        raise GateError(f"{out}: the candidate is refused: {'; '.join(findings['reasons'])}")

"""Plan a run: for the run itself, for ``plan`` and for ``run --dry-run``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.files.paths import locate
from nx47dask.io import discover
from nx47dask.planning.make import make_plan
from nx47dask.planning.plan import RunPlan
from nx47dask.runs.folder import refuse_nesting
from nx47dask.workflow import DEFAULT_WORKFLOW, load_workflow

__all__ = ["plan"]


def plan(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    workflow: str | Path = DEFAULT_WORKFLOW,
    overrides: Sequence[str] = (),
    block: int | None = None,
    bbox: str | None = None,
    level: int = 0,
    foreground: int = 255,
    delete_stores: bool = False,
    copy_input: bool | None = None,
    labels: str | Path | None = None,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> RunPlan:
    """Plan a run without writing anything.

    :func:`nx47dask.run` with the same arguments does what this plan says.

    Parameters
    ----------
    inputs, out, workflow, overrides, block, bbox, level, foreground, delete_stores, copy_input, where, **options
        As for :func:`nx47dask.run`.
    labels : path, optional
        Plan to score the masks against labels; the labels are not read.

    Returns
    -------
    RunPlan
        The plan as data. :func:`nx47dask.planning.projection.project` computes its tasks, memory and disk, and
        :func:`nx47dask.planning.text.plan_lines` describes both in words.

    Raises
    ------
    InputError
        An input, an option or the workflow cannot be used.

    Examples
    --------
    See how a volume is cut into blocks, and what the run would take:

    >>> import nx47dask
    >>> from nx47dask.planning.projection import project
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> planned = nx47dask.plan(["sample/train_images"], "first", workflow="v61.1", block=16, serial=True)
    >>> [len(job.grid) for job in planned.jobs]
    [8]
    >>> projection = project(planned)
    >>> projection.tasks, projection.worker_bytes < 1 << 30
    (39, True)
    """
    where = Where.of(where, **options)
    volumes = discover(inputs, level=level)
    refuse_nesting(inputs, locate(out))
    planned: RunPlan = make_plan(
        volumes,
        locate(out),
        load_workflow(workflow, overrides),
        block=block,
        bbox=bbox,
        foreground=foreground,
        delete_stores=delete_stores,
        copy_input=copy_input,
        device=where.device,
    )
    return replace(planned, scored=labels is not None, serial=where.serial)

"""Measure: slice and volume metrics of the mask as sums over blocks, components across blocks included."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Record, Task
from nx47dask.geometry import Block, Box
from nx47dask.io import read_summary, write_summary, write_text
from nx47dask.kernels.components import AttributeName, BlockComponents, Labelling, find_components
from nx47dask.kernels.topology import count_cells
from nx47dask.metrics.shape import slice_rows, volume_shape
from nx47dask.stages.job import VolumeJob
from nx47dask.stages.linking import gather, link_batch, save_components

__all__ = ["measure", "slices_path"]

STAGE = "measure"
LARGEST = 10

OBJECTS = "objects"
CAVITIES = "cavities"
SECTIONS = "sections"
LABELLINGS: dict[str, tuple[Labelling, tuple[AttributeName, ...]]] = {
    OBJECTS: (Labelling(26), ("voxels",)),
    CAVITIES: (Labelling(6, background=True), ("border",)),
    SECTIONS: (Labelling(26, per_slice=True), ("slice",)),
}


def measure(job: VolumeJob) -> Generator[Batch, dict[int, Record], dict[str, Any]]:
    """Measure the mask over the box that is written out; returns the volume's metrics."""
    grid = job.grid_of(job.box.shape)
    tasks = (
        Task(b.number, f"block {b.number} [{b.box.shift(job.box.start)}]", measure_block, (job, b.number), b.box.size)
        for b in grid
    )
    yield Batch(STAGE, tasks, len(grid), job.box.size)
    groups = 0
    for kind, (labelling, _) in LABELLINGS.items():
        linking = link_batch(job, grid, f"{STAGE}.{kind}", labelling)
        groups = linking.count
        yield linking
    merge = Task(0, "metrics", merge_measures, (job, groups))
    record = (yield Batch(f"{STAGE}.merge", [merge], 1, 0))[0]
    metrics: dict[str, Any] = record["metrics"]
    return metrics


def measure_block(job: VolumeJob, number: int) -> dict[str, Any]:
    """Count the cells and the components of one block."""
    grid = job.grid_of(job.box.shape)
    block = grid.numbered(number)
    padded = _read_padded(job, block)
    mask = np.ascontiguousarray(padded[1:-1, 1:-1, 1:-1])
    inner = grid.inner_faces(block)
    cells = count_cells(padded, (not inner[0][1], not inner[1][1], not inner[2][1]))
    complete: dict[str, NDArray[np.int64]] = {}
    for kind, (labelling, attributes) in LABELLINGS.items():
        found = find_components(mask.view(np.uint8), labelling, attributes, inner, block.box.start[0])
        save_components(found, job.summary(f"{STAGE}.{kind}", number))
        complete[kind] = _complete_attribute(found, attributes[0])
    depth = block.box.shape[0]
    write_summary(
        job.summary(STAGE, number),
        {
            "voxels": cells.slice_voxels,
            "euler": cells.slice_euler,
            "perimeter": cells.slice_perimeter,
            "overlap": cells.slice_overlap,
            "components": np.bincount(complete[SECTIONS] - block.box.start[0], minlength=depth),
            "volume_euler": np.array(cells.euler),
            "objects": np.array(len(complete[OBJECTS])),
            "largest": np.sort(complete[OBJECTS])[::-1][:LARGEST],
            "cavities": np.array(np.count_nonzero(~complete[CAVITIES].astype(bool))),
        },
    )
    stages = (STAGE, *(f"{STAGE}.{kind}" for kind in LABELLINGS))
    return {"files": job.files(*(job.summary(stage, number) for stage in stages))}


def merge_measures(job: VolumeJob, groups: int) -> dict[str, Any]:
    """Sum the blocks, add the components that cross their faces; write the volume's rows of ``slices.csv``."""
    grid = job.grid_of(job.box.shape)
    whole = {kind: gather(job, grid, f"{STAGE}.{kind}", groups).attributes for kind in LABELLINGS}
    columns = ("voxels", "euler", "perimeter", "overlap", "components")
    counts = {name: np.zeros(job.box.shape[0], dtype=np.int64) for name in columns}
    objects = len(whole[OBJECTS]["voxels"])
    cavities = int(np.count_nonzero(~whole[CAVITIES]["border"].astype(bool)))
    largest = [whole[OBJECTS]["voxels"].astype(np.int64)]
    euler = 0
    for block in grid:
        part = read_summary(job.summary(STAGE, block.number))
        for name in columns:
            counts[name][block.box.slices[0]] += part[name]
        objects += int(part["objects"])
        cavities += int(part["cavities"])
        euler += int(part["volume_euler"])
        largest.append(part["largest"])
    counts["components"] += np.bincount(whole[SECTIONS]["slice"].astype(np.int64), minlength=job.box.shape[0])
    _write_slices(job, counts)
    sizes = np.sort(np.concatenate(largest))[::-1][:LARGEST].tolist()
    voxels = int(counts["voxels"].sum())
    metrics = volume_shape(job.box.size, voxels, objects, cavities, euler, sizes)
    return {"metrics": metrics, "files": job.files(slices_path(job))}


def slices_path(job: VolumeJob) -> Path:
    """The volume's rows of ``slices.csv``, without the header."""
    return Path(job.store) / "slices.csv"


def _write_slices(job: VolumeJob, counts: dict[str, NDArray[np.int64]]) -> None:
    text = io.StringIO()
    _, height, width = job.box.shape
    csv.writer(text, lineterminator="\n").writerows(slice_rows(job.id, job.box.start[0], height * width, counts))
    write_text(slices_path(job), text.getvalue())


def _read_padded(job: VolumeJob, block: Block) -> NDArray[np.bool_]:
    """The mask of a block with one voxel of context; background outside the box that is written out."""
    wanted = block.box.expand((1, 1, 1))
    inside = wanted.clip(Box.of_shape(job.box.shape))
    offset = job.box.relative_to(job.work.start).start
    padded = np.zeros(wanted.shape, dtype=bool)
    padded[inside.relative_to(wanted.start).slices] = job.array("mask").read(inside.shift(offset)) != 0
    return padded


def _complete_attribute(found: BlockComponents, name: str) -> NDArray[np.int64]:
    return found.attributes[name][found.complete()].astype(np.int64)

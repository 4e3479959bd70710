"""Measure: compute slice and volume metrics of the mask as sums over blocks, with components across blocks."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.files.atomic import write_text
from nx47dask.files.paths import locate
from nx47dask.files.summaries import read_summary, write_summary
from nx47dask.geometry import Block, Box
from nx47dask.kernels.components import AttributeName, BlockComponents, Labelling, find_components
from nx47dask.kernels.topology import count_cells
from nx47dask.metrics.shape import MaskShape, slice_rows, volume_shape
from nx47dask.stages.emptiness import Filled, Occupancy
from nx47dask.stages.linking import (
    BlockScan,
    Graph,
    count_links,
    face_bytes,
    link,
    resolve_batch,
    save_components,
    union_bytes,
    unite_graph,
)
from nx47dask.stages.load import PASS_BYTES_PER_VOXEL, StageLoad, context_voxels
from nx47dask.stages.volume_job import VolumeJob

__all__ = ["measure", "measure_load", "slices_path"]

STAGE = "measure"
REVISION = 1
"""Raised when the bits of a result change: part of the identity of every plan that uses it."""
LARGEST = 10
"""Largest components whose sizes are kept."""

OBJECTS = "objects"
CAVITIES = "cavities"
SECTIONS = "sections"
LABELLINGS: dict[str, tuple[Labelling, tuple[AttributeName, ...]]] = {
    OBJECTS: (Labelling(26), ("voxels",)),
    CAVITIES: (Labelling(6, background=True), ("border",)),
    SECTIONS: (Labelling(26, per_slice=True), ("slice",)),
}


class MeasuredBlock(Filled):
    """Result of the measure of a block; only ``filled`` where the block is known to be empty.

    Attributes
    ----------
    shared : dict of str to int, optional
        Components at its inner faces, by kind.
    files : dict of str to int, optional
    """

    shared: NotRequired[dict[str, int]]
    files: NotRequired[dict[str, int]]


class Counts(TypedDict, total=False):
    """Components of a graph, all of which cross faces of blocks; by their kind some of these.

    Attributes
    ----------
    objects, cavities : int
    largest : list of int
        Voxels of the largest objects.
    slices, components : list of int
        Slices with components, and how many each has.
    """

    objects: int
    largest: list[int]
    cavities: int
    slices: list[int]
    components: list[int]


class CountedGraph(TypedDict):
    """Result of the count of a graph."""

    counted: Counts


class MergedMeasures(TypedDict):
    """Result of the merge of all blocks: measures of the mask, and the file of its slices."""

    metrics: MaskShape
    files: dict[str, int]


def measure(job: VolumeJob, mask: Occupancy) -> Pipeline[MaskShape]:
    """Measure the mask in the box that is written out; return the metrics of the volume.

    Parameters
    ----------
    job : VolumeJob
    mask : Occupancy
        Occupancy of the mask, in coordinates of ``work``.
    """
    grid = job.grid_of(job.box.shape)
    offset = job.box.relative_to(job.work.start).start
    measured = {block.number for block in grid if not mask.is_empty(_context(job, block).shift(offset))}
    nothing: MeasuredBlock = {"filled": []}
    tasks = (
        Task(b.number, f"block {b.number} [{b.box.shift(job.box.start)}]", measure_block, (job, b.number), b.box.size,
             known=None if b.number in measured else nothing)
        for b in grid
    )  # fmt: skip
    records: dict[int, MeasuredBlock] = yield Batch(STAGE, tasks, len(grid), job.box.size, grid=grid.counts)
    empty = frozenset(number for number, record in records.items() if not record["filled"])
    whole: dict[str, list[Counts]] = {}
    for kind in LABELLINGS:
        shared = {number: record["shared"][kind] for number, record in records.items() if number not in empty}
        graphs = yield from link(_block_scan(job, kind), shared, empty)
        whole[kind] = []
        if graphs:
            counted: dict[int, CountedGraph] = yield resolve_batch(
                _block_scan(job, kind), graphs, count_components, kind
            )
            whole[kind] = [record["counted"] for record in counted.values()]
    merge = Task(0, "metrics", merge_measures, (job, sorted(measured), whole))
    merged: dict[int, MergedMeasures] = yield Batch(f"{STAGE}.merge", [merge], 1, 0)
    return merged[0]["metrics"]


def measure_load(job: VolumeJob) -> StageLoad:
    """Bound the load of the stage for a volume."""
    grid = job.grid_of(job.box.shape)
    largest, voxels = context_voxels(grid, (1, 1, 1))
    memory = max(largest * PASS_BYTES_PER_VOXEL, union_bytes(grid))
    linking = [count_links(grid, labelling) for labelling, _ in LABELLINGS.values()]
    links, merges = (sum(counts) for counts in zip(*linking, strict=True))
    stored = len(LABELLINGS) * face_bytes(grid) + job.box.shape[0] * 100 * (1 + len(grid) // grid.counts[0])
    what = "slice and volume metrics"
    return StageLoad(STAGE, what, len(grid), voxels, memory, stored, links=links, merges=merges + 1)


def measure_block(job: VolumeJob, number: int) -> MeasuredBlock:
    """Count the cells and the components of a block."""
    grid = job.grid_of(job.box.shape)
    block = grid.numbered(number)
    padded = _read_padded(job, block)
    mask = np.ascontiguousarray(padded[1:-1, 1:-1, 1:-1])
    inner = grid.inner_faces(block)
    cells = count_cells(padded, (not inner[0][1], not inner[1][1], not inner[2][1]))
    filled = bool(mask.any())
    complete: dict[str, NDArray[np.int64]] = {}
    shared = {}
    for kind, (labelling, attributes) in LABELLINGS.items():
        components = find_components(mask.view(np.uint8), labelling, attributes, inner, block.box.start[0])
        complete[kind] = _complete_attribute(components, attributes[0])
        shared[kind] = len(components.shared)
        if filled:
            save_components(components, _block_scan(job, kind).path(number))
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
    paths = [job.summary(STAGE, number), *(_block_scan(job, kind).path(number) for kind in LABELLINGS if filled)]
    return {"filled": [number] if filled else [], "shared": shared, "files": job.files(*paths)}


def count_components(scan: BlockScan, graph: Graph, kind: str) -> CountedGraph:
    """Count the components of a graph, all of which cross faces of blocks."""
    whole = unite_graph(scan, graph)
    if kind == OBJECTS:
        sizes = whole.attributes["voxels"]
        return {"counted": {"objects": whole.number, "largest": np.sort(sizes)[::-1][:LARGEST].tolist()}}
    if kind == CAVITIES:
        return {"counted": {"cavities": int(np.count_nonzero(~whole.attributes["border"].astype(bool)))}}
    slices, components = np.unique(whole.attributes["slice"], return_counts=True)
    return {"counted": {"slices": slices.tolist(), "components": components.tolist()}}


def merge_measures(job: VolumeJob, measured: Sequence[int], whole: Mapping[str, Sequence[Counts]]) -> MergedMeasures:
    """Sum the metrics of the measured blocks and of the components across them; write the rows of ``slices.csv``.

    Parameters
    ----------
    job : VolumeJob
    measured : sequence of int
        Blocks that left a summary; the other blocks are empty.
    whole : mapping
        By kind, the counts of :func:`count_components`, one for each graph.
    """
    grid = job.grid_of(job.box.shape)
    columns = ("voxels", "euler", "perimeter", "overlap", "components")
    totals = {name: np.zeros(job.box.shape[0], dtype=np.int64) for name in columns}
    objects = sum(counts["objects"] for counts in whole[OBJECTS])
    cavities = sum(counts["cavities"] for counts in whole[CAVITIES])
    largest = [np.array(counts["largest"], dtype=np.int64) for counts in whole[OBJECTS]]
    euler = 0
    for block in map(grid.numbered, measured):
        part = read_summary(job.summary(STAGE, block.number))
        for name in columns:
            totals[name][block.box.slices[0]] += part[name]
        objects += int(part["objects"])
        cavities += int(part["cavities"])
        euler += int(part["volume_euler"])
        largest.append(part["largest"])
    for layer in whole[SECTIONS]:
        totals["components"][layer["slices"]] += layer["components"]
    _write_slices(job, totals)
    sizes = np.sort(np.concatenate([*largest, np.zeros(0, dtype=np.int64)]))[::-1][:LARGEST].tolist()
    voxels = int(totals["voxels"].sum())
    metrics = volume_shape(job.box.size, voxels, objects, cavities, euler, sizes)
    return {"metrics": metrics, "files": job.files(slices_path(job))}


def slices_path(job: VolumeJob) -> Path:
    """Return the path of the volume's rows of ``slices.csv``, without the header."""
    return locate(job.store) / "slices.csv"


def _write_slices(job: VolumeJob, counts: dict[str, NDArray[np.int64]]) -> None:
    text = io.StringIO()
    _, height, width = job.box.shape
    csv.writer(text, lineterminator="\n").writerows(slice_rows(job.id, job.box.start[0], height * width, counts))
    write_text(slices_path(job), text.getvalue())


def _block_scan(job: VolumeJob, kind: str) -> BlockScan:
    return BlockScan(job, job.grid_of(job.box.shape), f"{STAGE}.{kind}", *LABELLINGS[kind])


def _context(job: VolumeJob, block: Block) -> Box:
    """Add one voxel of context to a block, clipped to the box that is written out."""
    return block.box.expand((1, 1, 1)).clip(Box.of_shape(job.box.shape))


def _read_padded(job: VolumeJob, block: Block) -> NDArray[np.bool_]:
    """Read the mask of a block with one voxel of context; outside the box that is written out it is background."""
    wanted = block.box.expand((1, 1, 1))
    inside = _context(job, block)
    offset = job.box.relative_to(job.work.start).start
    padded = np.zeros(wanted.shape, dtype=bool)
    padded[inside.relative_to(wanted.start).slices] = job.array("mask").read(inside.shift(offset)) != 0
    return padded


def _complete_attribute(components: BlockComponents, name: str) -> NDArray[np.int64]:
    return components.attributes[name][components.complete()].astype(np.int64)

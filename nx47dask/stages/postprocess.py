"""Post-process: run the passes of the workflow over blocks, from probability to mask."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.files.summaries import read_summary, write_summary
from nx47dask.geometry import Block, BlockGrid, Box
from nx47dask.kernels.components import find_components, label
from nx47dask.kernels.probability import slice_histograms
from nx47dask.merge.histograms import quantile_levels
from nx47dask.stages.emptiness import Filled, Occupancy, changes_of_nothing, filled_by
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
from nx47dask.stages.load import PASS_BYTES_PER_VOXEL, TASK_FILE_BYTES, StageLoad, context_voxels, stored_array_bytes
from nx47dask.stages.volume_job import VolumeJob, describe_block
from nx47dask.steps.chain import Changes, apply_chain
from nx47dask.steps.passes import ComponentScan, Pass, QuantileScan, describe

__all__ = ["pass_load", "postprocess", "stage_name"]


class ProcessedBlock(Filled):
    """Result of a pass for a block, without the optional values where nothing had to run.

    Attributes
    ----------
    changes : dict
        Voxels added and removed by each step.
    crc32 : int, optional
        Of the values of the block.
    shared : int, optional
        Components at its inner faces, where the pass scans for components.
    files : dict of str to int, optional
        With their bytes.
    """

    changes: Changes
    crc32: NotRequired[int]
    shared: NotRequired[int]
    files: NotRequired[dict[str, int]]


class JudgedGraph(TypedDict):
    """Result of the verdict on the components of a graph.

    Attributes
    ----------
    shared, components : int
        Components of the blocks, and what they unite to.
    changed : list of int
        Empty blocks that the verdict changes.
    files : dict of str to int
    """

    shared: int
    components: int
    changed: list[int]
    files: dict[str, int]


class QuantileLevels(TypedDict):
    """Levels at the quantiles of every slice; one row where they are of the volume."""

    levels: list[list[int]]


def postprocess(
    job: VolumeJob, passes: tuple[Pass, ...], probability: Occupancy
) -> Pipeline[tuple[Changes, Occupancy]]:
    """Run the passes; the last one fills the mask store.

    Returns
    -------
    Changes
        Voxels that each step added and removed.
    Occupancy
        The blocks where the mask is not empty.
    """
    source, state = "probability", _State(probability)
    changes: Changes = {}
    for current in passes:
        stage = stage_name(current.number)
        intermediate = f"work/{current.gives}.{current.number}" if current.writes else source
        target = "mask" if current.number == len(passes) - 1 else intermediate
        if target != source:
            job.prepare(job.array(target))
        records: dict[int, ProcessedBlock] = yield _pass_batch(job, current, source, target, state)
        for record in records.values():
            _add_changes(changes, record["changes"])
        source, state = target, _State(filled_by(records, job.grid))
        empty = frozenset(number for number, record in records.items() if not record["filled"])
        if isinstance(current.scan, ComponentScan):
            shared = {number: record["shared"] for number, record in records.items() if number not in empty}
            yield from _judge(_block_scan(job, current.scan, stage), current.scan, shared, empty, state)
        elif isinstance(current.scan, QuantileScan):
            merge = Task(0, "quantiles", merge_quantiles, (job, current.scan, stage, empty))
            merged: dict[int, QuantileLevels] = yield Batch(f"{stage}.resolve", [merge], 1, 0)
            state.levels = np.array(merged[0]["levels"], dtype=np.int64)
    return changes, state.filled


@dataclass
class _State:
    """State of the client between two passes.

    Attributes
    ----------
    filled : Occupancy
        Blocks where the store that the next pass reads is not empty.
    levels : ndarray of int64, optional
        Levels at quantiles, one row per slice, or a single row for the volume.
    groups : dict of int to int
        By block number, the group whose file has the verdict on the block's shared components.
    changed : set of int
        Numbers of empty blocks that the verdict changes.
    """

    filled: Occupancy
    levels: NDArray[np.int64] | None = None
    groups: dict[int, int] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)


def _judge(
    scan: BlockScan, rules: ComponentScan, shared: dict[int, int], empty: frozenset[int], state: _State
) -> Pipeline[None]:
    """Link the components of all blocks, judge them, and note in the state which files hold the verdicts."""
    graphs = yield from link(scan, shared, empty)
    if not graphs:
        return
    verdicts: dict[int, JudgedGraph] = yield resolve_batch(scan, graphs, resolve_components, rules, empty)
    state.groups = {number: group.index for graph in graphs for group in graph.groups for number in group.shared}
    state.changed = {number for record in verdicts.values() for number in record["changed"]}


def stage_name(number: int) -> str:
    """Return the name of a pass among the stages of a run."""
    return f"postprocess.{number + 1}"


def pass_load(job: VolumeJob, current: Pass, *, is_last: bool) -> StageLoad:
    """Bound the load of a pass for a volume."""
    grid = job.grid
    largest, voxels = context_voxels(grid, current.radius_zyx)
    memory = largest * PASS_BYTES_PER_VOXEL
    stored = 0
    if is_last or current.writes:
        stored = stored_array_bytes(job, "mask" if is_last else current.gives)
    links = merges = 0
    if isinstance(current.scan, ComponentScan):
        links, merges = count_links(grid, current.scan.labelling)
        memory = max(memory, union_bytes(grid))
        stored += face_bytes(grid)
    elif isinstance(current.scan, QuantileScan):
        merges = 1
        rows = 1 if current.scan.thresholds.by == "volume" else job.block
        stored += len(grid) * (TASK_FILE_BYTES + rows * (8 << 8 * np.dtype(job.probability_dtype).itemsize) // 4)
    name, what = stage_name(current.number), describe(current)
    return StageLoad(name, what, len(grid), voxels, memory, stored, links=links, merges=merges)


def _pass_batch(job: VolumeJob, current: Pass, source: str, target: str, state: _State) -> Batch:
    grid = job.grid
    nothing = changes_of_nothing(current, state.levels, job)

    def task(block: Block) -> Task:
        outer = job.context(block.box, current.radius_zyx)
        empty = state.filled.is_empty(outer)
        idle = empty and nothing is not None and not _fills(current, block.number, state)
        arguments = (job, current, source, target, _rows(state.levels, outer), state.groups.get(block.number), empty)
        return Task(
            block.number,
            describe_block(block, job),
            run_pass,
            (*arguments, block.number),
            block.box.size,
            known={"changes": nothing, "filled": []} if idle else None,
        )

    return Batch(stage_name(current.number), map(task, grid), len(grid), job.work.size, grid=grid.counts)


def _fills(current: Pass, number: int, state: _State) -> bool:
    """Return True if the verdict may fill an empty block, whose background is one component."""
    if current.resolve is None or not current.resolve.labelling.background:
        return False
    return number in state.changed or number not in state.groups


def run_pass(
    job: VolumeJob,
    current: Pass,
    source: str,
    target: str,
    levels: NDArray[np.int64] | None,
    group: int | None,
    empty: bool,
    number: int,
) -> ProcessedBlock:
    """Run a pass over a block: resolve, local steps, write, scan; ``empty``: its input, context included, is zeros."""
    block = job.grid.numbered(number)
    outer = job.context(block.box, current.radius_zyx)
    core = block.box.relative_to(outer.start)
    store = job.array(source)
    data = np.zeros(outer.shape, dtype=store.dtype) if empty else store.read(outer)
    changes: Changes = {}
    if current.resolve:
        scan = _block_scan(job, current.resolve, stage_name(current.number - 1))
        data = _resolve(scan, current.resolve, block, group, data, changes)
    image = job.read_image(outer) if current.reads_image else None
    data, changed = apply_chain(current.local, data, image, levels, core)
    data = np.ascontiguousarray(data[core.slices])
    filled = bool(data.any())
    record: ProcessedBlock = {
        "crc32": zlib.crc32(data.data),
        "changes": changes | changed,
        "filled": [number] if filled else [],
    }
    files = []
    if filled and current.scan:
        shared = _scan(job, current, block, data)
        if shared is not None:
            record["shared"] = shared
        files.append(job.summary(stage_name(current.number), number))
    if current.writes:
        job.array(target).write(block.box, data)
        files += job.array(target).files(block.box)
    record["files"] = job.files(*files)
    return record


def resolve_components(scan: BlockScan, graph: Graph, rules: ComponentScan, empty: frozenset[int]) -> JudgedGraph:
    """Judge the components of a graph, which cross faces of blocks, and write a file for each group of blocks.

    The record names the ``empty`` blocks that the verdict changes.
    """
    whole = unite_graph(scan, graph)
    verdict = rules.decide(whole.attributes)[whole.component]
    changed, paths = [], []
    for group, of_blocks in graph.split(verdict):
        paths.append(scan.resolve_path(group.index))
        write_summary(paths[-1], {str(number): values for number, values in of_blocks.items()})
        changed += [number for number, values in of_blocks.items() if number in empty and values.any()]
    return {
        "shared": len(whole.component),
        "components": whole.number,
        "changed": changed,
        "files": scan.job.files(*paths),
    }


def merge_quantiles(job: VolumeJob, scan: QuantileScan, stage: str, empty: frozenset[int]) -> QuantileLevels:
    """Find the levels at the quantiles of every slice, or of the volume; ``empty`` blocks left no summary."""
    by_slice = scan.thresholds.by == "slice"
    parts = _layers(job.grid) if by_slice else [job.grid]
    histograms = (_sum_histograms(job, stage, part, empty, by_slice) for part in parts)
    levels = [quantile_levels(counts, scan.thresholds.thresholds) for counts in histograms]
    return {"levels": np.concatenate(levels).tolist()}


def _layers(grid: BlockGrid) -> Iterator[list[Block]]:
    """Yield the blocks layer by layer, since the histograms of all slices may not fit into memory."""
    _, ny, nx = grid.counts
    for first in range(0, len(grid), ny * nx):
        yield [grid.numbered(number) for number in range(first, first + ny * nx)]


def _sum_histograms(
    job: VolumeJob, stage: str, blocks: Iterable[Block], empty: frozenset[int], by_slice: bool
) -> NDArray[np.int64]:
    """Sum the histograms of blocks: slice by slice for a layer of blocks, or of whole blocks."""
    values = np.iinfo(job.probability_dtype).max + 1

    def histograms(block: Block) -> NDArray[np.int64]:
        if block.number not in empty:
            return read_summary(job.summary(stage, block.number))["histograms"]
        rows = block.box.shape[0] if by_slice else 1
        counts = np.zeros((rows, values), dtype=np.int64)
        counts[:, 0] = block.box.size // rows
        return counts

    total: NDArray[np.int64] = functools.reduce(np.add, map(histograms, blocks))
    return total


def _block_scan(job: VolumeJob, scan: ComponentScan, stage: str) -> BlockScan:
    return BlockScan(job, job.grid, stage, scan.labelling, scan.attributes)


def _resolve(
    scan: BlockScan,
    rules: ComponentScan,
    block: Block,
    group: int | None,
    state: NDArray[np.uint8],
    changes: Changes,
) -> NDArray[np.uint8]:
    """Apply the verdicts on the components of a block: of its scan for complete ones, of the graph for shared ones."""
    background = rules.labelling.background
    foreground = state != 0
    if foreground.any():
        summary = read_summary(scan.path(block.number))
        verdict, shared = summary["verdict"], summary["shared"]
        labels, _ = label(~foreground if background else foreground, rules.labelling)
    else:
        known = scan.of_empty(block.number)
        verdict, shared, labels = rules.decide(known.attributes), known.shared, known.labels
    if len(shared):
        assert group is not None
        verdict[shared - 1] = read_summary(scan.resolve_path(group))[str(block.number)]
    changed_by = np.concatenate([[0], verdict]).astype(np.uint8).take(labels)
    for number, (name, _) in enumerate(rules.rules, start=1):
        count = int(np.count_nonzero(changed_by == number))
        changes[name] = [count, 0] if background else [0, count]
    changed = changed_by != 0
    result: NDArray[np.bool_] = foreground | changed if background else foreground & ~changed
    return result.view(np.uint8)


def _scan(job: VolumeJob, current: Pass, block: Block, data: NDArray[np.uint8]) -> int | None:
    """Write the summary of a block that is not empty, for the next verdict; return what its record needs."""
    path = job.summary(stage_name(current.number), block.number)
    if isinstance(current.scan, ComponentScan):
        scan, inner = current.scan, job.grid.inner_faces(block)
        components = find_components(data, scan.labelling, scan.attributes, inner, block.box.start[0])
        save_components(components, path, verdict=scan.decide(components.attributes), shared=components.shared)
        return len(components.shared)
    assert current.scan
    histograms = slice_histograms(data)
    whole = current.scan.thresholds.by == "volume"
    write_summary(path, {"histograms": histograms.sum(axis=0, keepdims=True) if whole else histograms})
    return None


def _rows(levels: NDArray[np.int64] | None, box: Box) -> NDArray[np.int64] | None:
    """Return the levels of a block's slices; a single row serves all slices."""
    return levels if levels is None or len(levels) == 1 else levels[box.slices[0]]


def _add_changes(total: Changes, more: Changes) -> None:
    for name, (added, removed) in more.items():
        before = total.setdefault(name, [0, 0])
        total[name] = [before[0] + added, before[1] + removed]

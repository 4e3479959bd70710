"""Post-process: the passes of the workflow over blocks, from probability to mask."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Record, Task
from nx47dask.geometry import Block, BlockGrid, Box
from nx47dask.io import read_summary, replace_file, write_summary
from nx47dask.kernels.components import find_components, label
from nx47dask.kernels.probability import slice_histograms
from nx47dask.merge.histograms import quantile_levels
from nx47dask.stages.job import VolumeJob, describe_block
from nx47dask.stages.linking import gather, link_batch, save_components
from nx47dask.steps import Binarise, LocalStep
from nx47dask.steps.passes import ComponentScan, Pass, QuantileScan

__all__ = ["postprocess"]

Changes = dict[str, list[int]]
"""Voxels that a step added and removed."""


def postprocess(job: VolumeJob, passes: tuple[Pass, ...]) -> Generator[Batch, dict[int, Record], Changes]:
    """Run the passes; the last one fills the mask store. Returns the voxels added and removed by each step."""
    source, levels = "probability", None
    changes: Changes = {}
    for one in passes:
        stage = stage_name(one.number)
        intermediate = f"work/{one.gives}.{one.number}" if one.writes else source
        target = "mask" if one.number == len(passes) - 1 else intermediate
        if target != source:
            job.prepare(job.array(target))
        records = yield _pass_batch(job, one, stage, source, target, levels)
        for record in records.values():
            _add_changes(changes, record["changes"])
        source, levels = target, None
        if isinstance(one.scan, ComponentScan):
            linking = link_batch(job, job.grid, stage, one.scan.labelling)
            yield linking
            resolve = Task(0, "components", resolve_components, (job, one.scan, stage, linking.count))
            yield Batch(f"{stage}.resolve", [resolve], 1, 0)
        elif isinstance(one.scan, QuantileScan):
            merge = Task(0, "quantiles", merge_quantiles, (job, one.scan, stage))
            merged = yield Batch(f"{stage}.resolve", [merge], 1, 0)
            levels = np.array(merged[0]["levels"], dtype=np.int64)
    return changes


def stage_name(number: int) -> str:
    """Name of a pass among the stages of a run."""
    return f"postprocess.{number + 1}"


def _pass_batch(
    job: VolumeJob, one: Pass, stage: str, source: str, target: str, levels: NDArray[np.int64] | None
) -> Batch:
    grid = job.grid
    tasks = (
        Task(
            block.number,
            describe_block(block, job),
            run_pass,
            (job, one, source, target, _rows(levels, job.context(block.box, one.radius_zyx)), block.number),
            block.box.size,
        )
        for block in grid
    )
    return Batch(stage, tasks, len(grid), job.work.size)


def run_pass(
    job: VolumeJob, one: Pass, source: str, target: str, levels: NDArray[np.int64] | None, number: int
) -> dict[str, Any]:
    """One pass over one block: resolve, local steps, write, scan."""
    block = job.grid.numbered(number)
    outer = job.context(block.box, one.radius_zyx)
    core = block.box.relative_to(outer.start).slices
    data = job.array(source).read(outer)
    changes: Changes = {}
    if one.resolve:
        data = _resolve(job, one.resolve, stage_name(one.number - 1), block, data, changes)
    image = job.read_image(outer) if one.reads_image else None
    for name, step in one.local:
        data = _apply(name, step, data, image, levels, core, changes)
    data = np.ascontiguousarray(data[core])
    files = _scan(job, one, block, data)
    if one.writes:
        job.array(target).write(block.box, data)
        files += job.array(target).files(block.box)
    return {"crc32": zlib.crc32(data.data), "changes": changes, "files": job.files(*files)}


def resolve_components(job: VolumeJob, scan: ComponentScan, stage: str, groups: int) -> dict[str, Any]:
    """The verdict on every component that crosses block faces, one byte per block and component."""
    whole = gather(job, job.grid, stage, groups)
    folder = job.summary(f"{stage}.resolve", 0).parent
    verdict = scan.decide(whole.attributes)[whole.component]
    for name, values in (("offsets.npy", whole.offsets), ("verdict.npy", verdict)):
        with replace_file(folder / name, durable=False) as temporary, temporary.open("wb") as stream:
            np.save(stream, values)
    files = job.files(folder / "offsets.npy", folder / "verdict.npy")
    return {"shared": len(whole.component), "components": whole.number, "files": files}


def merge_quantiles(job: VolumeJob, scan: QuantileScan, stage: str) -> dict[str, Any]:
    """Levels at the quantiles of every slice, or of the volume."""
    parts = _layers(job.grid) if scan.thresholds.by == "slice" else [job.grid]
    levels = [quantile_levels(_sum_histograms(job, stage, part), scan.thresholds.thresholds) for part in parts]
    return {"levels": np.concatenate(levels).tolist()}


def _layers(grid: BlockGrid) -> Iterator[list[Block]]:
    """The blocks that share their slices: the histograms of all slices may be more than memory holds."""
    _, ny, nx = grid.counts
    for first in range(0, len(grid), ny * nx):
        yield [grid.numbered(number) for number in range(first, first + ny * nx)]


def _sum_histograms(job: VolumeJob, stage: str, blocks: Iterable[Block]) -> NDArray[np.int64]:
    """Histograms of the slices of blocks that lie beside one another, or of whole blocks."""
    found = (read_summary(job.summary(stage, block.number))["histograms"] for block in blocks)
    total: NDArray[np.int64] = functools.reduce(np.add, found)
    return total


def _apply(
    name: str,
    step: LocalStep,
    data: NDArray[np.unsignedinteger],
    image: NDArray[np.unsignedinteger] | None,
    levels: NDArray[np.int64] | None,
    core: tuple[slice, slice, slice],
    changes: Changes,
) -> NDArray[np.uint8]:
    if isinstance(step, Binarise):
        result = step.apply(data, levels=levels)
        changes[name] = [int(np.count_nonzero(result[core])), 0]
        return result
    result = step.apply(data, image)
    if step.takes == "mask":
        before, after = data[core] != 0, result[core] != 0
        changes[name] = [int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))]
    return result


def _resolve(
    job: VolumeJob,
    scan: ComponentScan,
    stage: str,
    block: Block,
    state: NDArray[np.uint8],
    changes: Changes,
) -> NDArray[np.uint8]:
    """Apply the verdict on components: what the scan decided of complete ones, what all blocks decided of the rest."""
    summary = read_summary(job.summary(stage, block.number))
    verdict = summary["verdict"]
    verdict[summary["shared"] - 1] = _read_verdict(job, stage, block.number)
    foreground = state != 0
    labels, _ = label(~foreground if scan.labelling.background else foreground, scan.labelling)
    changed_by = np.concatenate([[0], verdict]).astype(np.uint8).take(labels)
    for number, (name, _) in enumerate(scan.rules, start=1):
        count = int(np.count_nonzero(changed_by == number))
        changes[name] = [count, 0] if scan.labelling.background else [0, count]
    changed = changed_by != 0
    result: NDArray[np.bool_] = foreground | changed if scan.labelling.background else foreground & ~changed
    return result.view(np.uint8)


def _scan(job: VolumeJob, one: Pass, block: Block, data: NDArray[np.uint8]) -> list[Path]:
    """Summarise a block for the next verdict; returns the file, if any."""
    path = job.summary(stage_name(one.number), block.number)
    if isinstance(one.scan, ComponentScan):
        scan = one.scan
        found = find_components(data, scan.labelling, scan.attributes, job.grid.inner_faces(block))
        save_components(found, path, verdict=scan.decide(found.attributes), shared=found.shared)
    elif isinstance(one.scan, QuantileScan):
        histograms = slice_histograms(data)
        whole = one.scan.thresholds.by == "volume"
        write_summary(path, {"histograms": histograms.sum(axis=0, keepdims=True) if whole else histograms})
    return [path] if one.scan else []


def _rows(levels: NDArray[np.int64] | None, box: Box) -> NDArray[np.int64] | None:
    """Levels of a block's slices; a single row serves all."""
    return levels if levels is None or len(levels) == 1 else levels[box.slices[0]]


def _read_verdict(job: VolumeJob, stage: str, number: int) -> NDArray[np.uint8]:
    """The verdict on the shared components of one block."""
    folder = job.summary(f"{stage}.resolve", 0).parent
    first, last = np.load(folder / "offsets.npy", mmap_mode="r")[number : number + 2]
    verdict: NDArray[np.uint8] = np.load(folder / "verdict.npy", mmap_mode="r")[first:last]
    return verdict


def _add_changes(total: Changes, more: Changes) -> None:
    for name, (added, removed) in more.items():
        before = total.setdefault(name, [0, 0])
        total[name] = [before[0] + added, before[1] + removed]

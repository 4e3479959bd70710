"""The union step at the size of a whole scroll: one core, with limits of 2 minutes and 6 GB.

    python tests/benchmarks/bench_union.py [--small] [--folder DIR]

A generated case of 24 million shared components and 60 million links is written group by group in the format of the
link tasks; then the task that unites and judges all of them runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from nx47dask.engine.worker import peak_rss_bytes
from nx47dask.files.summaries import write_summary
from nx47dask.geometry import BlockGrid, Box
from nx47dask.io import Volume
from nx47dask.kernels.components import Labelling
from nx47dask.merge.components import forward_offsets
from nx47dask.stages.linking import BlockScan, Graph, make_graphs
from nx47dask.stages.postprocess import resolve_components
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps.objects import SmallObjects
from nx47dask.steps.passes import ComponentScan
from nx47dask.steps.thresholds import KeepStrong

BLOCK = 512
SCROLL = (40, 16, 16)
SHARED, LINKS = 2344, 6650
"""Per block; at the borders of the volume there are no links, which leaves 60 million."""
LIMIT_S, LIMIT_BYTES = 120.0, 6e9
RULES = ComponentScan(Labelling(26), (("hysteresis", KeepStrong()), ("small_objects", SmallObjects(min_vox=2000))))


def make_case(folder: Path, counts: tuple[int, int, int], shared: int, links: int) -> tuple[BlockScan, Graph, int]:
    """Write the links and attributes of all groups of blocks; returns the scan, its graph and the number of links.

    Nine links in ten lead across faces, to components of about the same place in the order; the rest across edges and
    corners.
    """
    shape = tuple(n * BLOCK for n in counts)
    volume = Volume("scroll", "zarr", str(folder / "scroll.zarr"), "", shape, "uint8", None, "")
    whole = Box.of_shape(shape)
    job = VolumeJob(volume, str(folder / "store" / "scroll.zarr"), whole, whole, BLOCK, copied=False)
    grid = BlockGrid(shape, (BLOCK,) * 3)
    scan = BlockScan(job, grid, "postprocess.1", RULES.labelling, RULES.attributes)
    (graph,) = make_graphs(scan, dict.fromkeys(range(len(grid)), shared))
    starts, total = graph.starts, 0
    for group in graph.groups:
        rng = np.random.default_rng(group.index)
        pairs = [_links(grid, number, starts, shared, links, rng) for number in group.shared]
        nodes = shared * len(group.shared)
        arrays = {
            "pairs": np.concatenate(pairs),
            "attribute.strong": rng.random(nodes) < 0.02,
            "attribute.voxels": rng.geometric(0.002, nodes),
        }
        write_summary(scan.link_path(group.index), arrays)
        total += len(arrays["pairs"])
    return scan, graph, total


def _links(grid, number, starts, shared, links, rng):
    """Linked nodes of a block and its forward neighbours, shape (links, 2)."""
    block, offsets = grid.numbered(number), forward_offsets(RULES.labelling)
    pairs = []
    for offset in offsets:
        other = grid.neighbour(block, offset)
        share = 0.3 if sum(map(abs, offset)) == 1 else 0.01
        if other is None:
            continue
        here = np.sort(rng.integers(0, shared, int(links * share)))
        there = np.clip(here + rng.integers(-2, 3, len(here)), 0, shared - 1)
        pairs.append(np.stack([here + starts[number], there + starts[other.number]], axis=1))
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)


def resolve(scan: BlockScan, graph: Graph) -> tuple[float, int, dict]:
    """Seconds, peak memory in bytes and the record of the task, in a process of its own on one core."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (scan, graph))


def _timed(scan, graph):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = time.perf_counter()
    record = resolve_components(scan, graph, RULES, frozenset())
    return time.perf_counter() - start, peak_rss_bytes(), record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a thousandth of it")
    parser.add_argument("--folder", type=Path, help="where the case goes; by default a temporary folder")
    options = parser.parse_args()
    counts, shared, links = ((4, 4, 4), 375, 1100) if options.small else (SCROLL, SHARED, LINKS)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        start = time.perf_counter()
        scan, graph, pairs = make_case(Path(folder), counts, shared, links)
        print(f"made {graph.nodes:,} nodes and {pairs:,} links in {time.perf_counter() - start:.0f} s", flush=True)
        seconds, peak, record = resolve(scan, graph)
    print(f"{record['components']:,} components")
    print(f"seconds {seconds:.1f}   (at most {LIMIT_S:.0f})")
    print(f"peak    {peak / 1e9:.2f} GB   (at most {LIMIT_BYTES / 1e9:.0f})")


if __name__ == "__main__":
    main()

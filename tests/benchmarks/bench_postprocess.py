"""Post-processing on two workers against whole-volume libraries in one process.

Hysteresis, small-object removal and hole filling of the same probability store, read from and written to Zarr by all
sides: this package (128³ blocks, two workers), scikit-image and scipy, and cc3d. Prints times and ratios of one run;
the masks must be identical::

    python -m tests.benchmarks.bench_postprocess [--edge 512] [--block 128] [--repeats 3]

With ``--workflow``, the post-processing of a workflow against hysteresis and small objects instead, both on two
workers and on the same noisy sheets, by default in the blocks that a run would have::

    python -m tests.benchmarks.bench_postprocess --workflow surface
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cc3d
import numpy as np
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_objects

from nx47dask.cluster.dask_pool import DaskPool
from nx47dask.cluster.spec import LocalSpec
from nx47dask.cluster.start import open_client
from nx47dask.detectors import Residual, quantise
from nx47dask.engine import Ledger, execute
from nx47dask.geometry import BlockGrid, Box
from nx47dask.io import ArrayStore, Volume
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.phantom.render import Phantom, render
from nx47dask.planning.make import default_block
from nx47dask.stages.emptiness import Occupancy
from nx47dask.stages.postprocess import postprocess
from nx47dask.stages.volume_job import VolumeJob
from nx47dask.steps import STEPS
from nx47dask.steps.passes import NamedStep, compile_passes
from nx47dask.workflow import load_workflow
from tests.planted import blurred

LOW, HIGH, MIN_VOX = 0.55, 0.75, 200
STEPS_USED = (
    NamedStep("hysteresis", STEPS["hysteresis"](low=LOW, high=HIGH, connectivity=6)),
    NamedStep("small_objects", STEPS["small_objects"](min_vox=MIN_VOX, connectivity=6)),
    NamedStep("fill_holes", STEPS["fill_holes"]()),
)
"""6-connectivity throughout, the only one that scikit-image's hysteresis has."""


BASE = (
    NamedStep("hysteresis", STEPS["hysteresis"](low=0.45, high=0.8)),
    NamedStep("small_objects", STEPS["small_objects"](min_vox=5000)),
)
"""What the chain of a workflow is held against."""


def make_probability(folder: Path, edge: int, block: int, sheets: bool) -> VolumeJob:
    """A phantom's residual, or its surfaces as a network would see them, in a store cut like the run's."""
    shape = (edge,) * 3
    volume = Volume("phantom", "zarr", str(folder), "", shape, "uint8", None, "")
    job = VolumeJob(volume, str(folder / "run"), Box.of_shape(shape), Box.of_shape(shape), block, copied=False)
    store = job.array("probability")
    if store.exists():
        return job
    store.create()
    phantom = Phantom(shape, seed=1)
    if sheets:
        surface = np.zeros(shape, dtype=bool)
        for one in BlockGrid(shape, (block,) * 3):
            surface[one.box.slices] = render(phantom, one.box)[1] == 1
        store.write(job.box, blurred(surface))
        return job
    scan = ScanStatistics(0, 255, 123.0, 38.0)
    detector = Residual(sigma_base=2.0)
    for one in BlockGrid(shape, (block,) * 3):
        outer = detector.context(one.box, job.volume_box, scan)
        store.write(
            one.box, quantise(detector.probability(render(phantom, outer)[0], outer, one.box, job.volume_box, scan))
        )
    return job


def run_blocks(job: VolumeJob, pool: DaskPool, steps: Sequence[NamedStep]) -> None:
    shutil.rmtree(Path(job.store) / "summaries", ignore_errors=True)
    for name in ("mask", "work"):
        shutil.rmtree(Path(job.store) / name, ignore_errors=True)
    with tempfile.TemporaryDirectory() as ledger:
        pipeline = postprocess(job, compile_passes(steps), Occupancy(np.ones((1, 1, 1), bool), job.work.shape))
        _, errors = execute({"phantom": pipeline}, pool, Ledger(Path(ledger)))
    assert not errors, errors


def whole(job: VolumeJob, function: object, name: str) -> None:
    probability = job.array("probability").read(job.box)
    store = ArrayStore(f"{job.store}/{name}", job.box.shape, (128,) * 3, (128,) * 3, "uint8")
    store.create(overwrite=True)
    store.write(job.box, function(probability))


def with_skimage(probability: np.ndarray) -> np.ndarray:
    mask = apply_hysteresis_threshold(probability, np.ceil(LOW * 255) - 1, np.ceil(HIGH * 255) - 1)
    mask = remove_small_objects(mask, max_size=MIN_VOX - 1)
    return ndimage.binary_fill_holes(mask).view(np.uint8)


def with_cc3d(probability: np.ndarray) -> np.ndarray:
    weak = probability >= np.ceil(LOW * 255)
    labels, number = cc3d.connected_components(weak, connectivity=6, binary_image=True, return_N=True)
    keep = np.zeros(number + 1, dtype=bool)
    keep[labels[probability >= np.ceil(HIGH * 255)]] = True
    keep &= np.bincount(labels.ravel(), minlength=number + 1) >= MIN_VOX
    keep[0] = False
    mask = keep[labels]
    labels, number = cc3d.connected_components(~mask, connectivity=6, binary_image=True, return_N=True)
    outside = np.zeros(number + 1, dtype=bool)
    for axis in range(3):
        for side in (0, -1):
            outside[np.take(labels, side, axis=axis)] = True
    outside[0] = True
    return (mask | ~outside[labels]).view(np.uint8)


def timed(repeats: int, *functions: object) -> list[list[float]]:
    """Times of the functions in turn, so that a drift of the machine hits all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, column in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            column.append(time.perf_counter() - start)
    return times


def against_libraries(job: VolumeJob, pool: DaskPool, repeats: int) -> None:
    ours, skimage, single = timed(
        repeats,
        lambda: run_blocks(job, pool, STEPS_USED),
        lambda: whole(job, with_skimage, "skimage"),
        lambda: whole(job, with_cc3d, "cc3d"),
    )
    result = job.array("mask").read(job.box)
    for name in ("skimage", "cc3d"):
        mask = ArrayStore(f"{job.store}/{name}", job.box.shape, (128,) * 3, (128,) * 3, "uint8").read(job.box)
        print(f"voxels that differ from {name}: {np.count_nonzero(mask != result)}")
    show({"nx47dask, 2 workers": ours, "skimage + scipy": skimage, "cc3d": single})
    mine = statistics.median(ours)
    print(f"skimage + scipy / nx47dask  {statistics.median(skimage) / mine:.2f}   (at least 3)")
    print(f"nx47dask / cc3d             {mine / statistics.median(single):.2f}   (at most 1.3)")


def against_thresholds(job: VolumeJob, pool: DaskPool, repeats: int, workflow: str) -> None:
    steps = load_workflow(workflow).steps
    chain, base = timed(repeats, lambda: run_blocks(job, pool, steps), lambda: run_blocks(job, pool, BASE))
    show({f"steps of {workflow}": chain, "hysteresis + small": base})
    print(f"{workflow} / hysteresis + small objects  {statistics.median(chain) / statistics.median(base):.2f}")


def show(timings: dict[str, list[float]]) -> None:
    for name, times in timings.items():
        print(f"{name:<20} median {statistics.median(times):6.2f} s   {[round(t, 2) for t in times]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--block", type=int, help="by default 128; with --workflow that of a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workflow", help="preset or file whose steps do not read the scan")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nx47dask-bench")
    options = parser.parse_args()
    block = options.block or (default_block((options.edge,) * 3) if options.workflow else 128)
    kind = "sheets" if options.workflow else "residual"
    job = make_probability(options.folder / f"{kind}-{options.edge}-{block}", options.edge, block, kind == "sheets")
    with open_client(LocalSpec(workers=2)) as client:
        pool = DaskPool(client)
        if options.workflow:
            run_blocks(job, pool, load_workflow(options.workflow).steps)
            against_thresholds(job, pool, options.repeats, options.workflow)
        else:
            run_blocks(job, pool, STEPS_USED)
            against_libraries(job, pool, options.repeats)


if __name__ == "__main__":
    main()

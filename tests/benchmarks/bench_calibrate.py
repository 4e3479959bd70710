"""Time and memory of the threshold table against one post-processing of the same field.

20 low thresholds by 20 high ones by 10 least sizes with labels, and hysteresis, small objects and holes once by the
same kernels on the whole volume; both in one process on one thread, in its CPU time. One by one, the masks would take
4,000 post-processings::

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_calibrate [--edge 320]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from nx47dask.calibration.methods.table import threshold_table
from nx47dask.detectors import Residual, quantise
from nx47dask.engine.worker import peak_rss_bytes
from nx47dask.geometry import Box
from nx47dask.kernels.components import find_components
from nx47dask.kernels.probability import binarise, level_of
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.phantom.render import Phantom, render
from nx47dask.steps.objects import FillHoles, SmallObjects
from nx47dask.steps.thresholds import KeepStrong

LOWS = tuple(np.linspace(0.40, 0.70, 20).round(4).tolist())
HIGHS = tuple(np.linspace(0.50, 0.90, 20).round(4).tolist())
SIZES = (1, 10, 30, 100, 200, 500, 1000, 2000, 5000, 10000)
LIMIT = 25
OUTSIDE = ((False, False),) * 3


def make_field(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """A phantom's residual as probability, and its labels."""
    box = Box.of_shape((edge,) * 3)
    image, labels = render(Phantom(box.shape, seed=1), box)
    scan = ScanStatistics(0, 255, 123.0, 38.0)
    return quantise(Residual(sigma_base=2.0).probability(image, box, box, box, scan)), labels


def post_process(field: np.ndarray, low: float, high: float, size: int) -> np.ndarray:
    """Hysteresis and small objects on one labelling, and holes."""
    state = binarise(field, np.array([[level_of(value, field.dtype) for value in (low, high)]]))
    strong, small, fill = KeepStrong(), SmallObjects(min_vox=size), FillHoles()
    found = find_components(state, strong.labelling(), (*strong.attributes, *small.attributes), OUTSIDE)
    gone = strong.changes(found.attributes) | small.changes(found.attributes)
    mask = np.append(False, ~gone)[found.labels].view(np.uint8)
    holes = find_components(mask, fill.labelling(), fill.attributes, OUTSIDE)
    mask[np.append(False, fill.changes(holes.attributes))[holes.labels]] = 1
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=320)
    edge = parser.parse_args().edge
    with ProcessPoolExecutor(1) as pool:  # its memory is not counted here
        field, labels = pool.submit(make_field, edge).result()
    small = (slice(0, 40),) * 3
    threshold_table(field[small].copy(), LOWS, HIGHS, SIZES, labels=labels[small].copy())  # compiles what there is to
    post_process(field[small].copy(), LOWS[10], HIGHS[10], SIZES[4])

    start, before = time.process_time(), peak_rss_bytes()
    post_process(field, LOWS[10], HIGHS[10], SIZES[4])
    once, peak_once = time.process_time() - start, peak_rss_bytes()
    start = time.process_time()
    table = threshold_table(field, LOWS, HIGHS, SIZES, labels=labels)
    took, peak = time.process_time() - start, peak_rss_bytes()

    print(f"{edge}³, {table.cheap.size} masks, {np.isfinite(table.cheap).sum()} of them with low <= high, "
          f"{table.components.max()} components at most")  # fmt: skip
    print(f"peak memory before {before / 2**20:.0f} MiB, after one mask {peak_once / 2**20:.0f} MiB, "
          f"after the table {peak / 2**20:.0f} MiB; the field has {field.nbytes / 2**20:.0f} MiB")  # fmt: skip
    print(f"one post-processing {once:.2f} s, the table {took:.2f} s: {took / once:.1f} times   (at most {LIMIT})")


if __name__ == "__main__":
    main()

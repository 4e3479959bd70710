"""Time and memory of the official score.

Scores a pair of 320³ masks with noise and holes in one process, the same pair without tunnels in the labels, and a
folder of 20 volumes on one and on two workers; where ``topolosses`` (which carries the official extension) is
installed, one octant of the pair by both::

    python -m tests.benchmarks.bench_score
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from nx47dask.engine.worker import peak_rss_bytes
from nx47dask.io import write_mask_tiff
from nx47dask.metrics.score import official_score

EDGE = 320
VOLUMES = 20
OCTANT = """
import glob, importlib.util, sys, time
from pathlib import Path
import numpy as np
folder = Path(importlib.util.find_spec("topolosses").origin).parent
(path,) = glob.glob(str(folder / "**" / "betti_matching*.so"), recursive=True)
spec = importlib.util.spec_from_file_location("betti_matching", path)
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)
prediction, labels = (np.load(path)[:160, :160, :160] != 0 for path in sys.argv[1:])
start = time.perf_counter()
matching = official.BettiMatching(1.0 - prediction, 1.0 - labels)
matching.compute_matching()
print(time.perf_counter() - start, *matching.get_matching().num_matched)
"""


def make_pair(edge: int, seed: int, *, holes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Wavy sheets of three voxels, with holes or not; the prediction is shifted, has holes, and noise of 1 in 1,000."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((edge,) * 3, dtype=np.float32)
    phase = x + 6 * np.sin(y / 23) + 5 * np.sin(z / 31) + 3 * np.sin((y + z) / 17)

    def pierced(mask: np.ndarray, sigma: float, level: float) -> np.ndarray:
        field = ndimage.gaussian_filter(rng.standard_normal(mask.shape, dtype=np.float32), sigma)
        return mask & (field < level * field.std())

    labels = phase % 19 < 3
    if holes:
        labels = pierced(labels, 5, 2.6)
    prediction = pierced((phase + 0.7) % 19 < 3.5, 4, 2.2) ^ (rng.random(labels.shape, dtype=np.float32) < 0.001)
    return prediction.astype(np.uint8), labels.astype(np.uint8)


def score_once(paths: list[str]) -> None:
    """Score a pair in this process and print seconds, peak memory, and the seconds with the places of defects.

    A smaller pair first compiles what there is to.
    """
    prediction, labels = (np.load(path) for path in paths)
    official_score(*make_pair(80, 1))
    start = time.perf_counter()
    score = official_score(prediction, labels, places=False)
    took, peak = time.perf_counter() - start, peak_rss_bytes() / 2**20
    official_score(prediction, labels)
    print(json.dumps([took, peak, time.perf_counter() - start - took, score["score"], score["counts"]]))


def in_process(*arguments: object) -> str:
    """Standard output of a Python process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def pairs(folder: Path) -> None:
    prediction, labels = make_pair(EDGE, 0)
    _, solid = make_pair(EDGE, 0, holes=False)
    for name, array in (("prediction", prediction), ("labels", labels), ("solid", solid)):
        np.save(folder / f"{name}.npy", array)
    for name in ("labels", "solid"):
        output = in_process("-m", "tests.benchmarks.bench_score", folder / "prediction.npy", folder / f"{name}.npy")
        seconds, mebibytes, with_places, score, counts = json.loads(output)
        print(f"{EDGE}³ against {name:<7} {seconds:6.2f} s  {mebibytes:5.0f} MiB  with places {with_places:.2f} s  "
              f"score {score:.4f}  counts {counts}")  # fmt: skip


def octant(folder: Path) -> None:
    from nx47dask.metrics.topology import count_features

    try:
        official = in_process("-c", OCTANT, folder / "prediction.npy", folder / "labels.npy").split()
    except subprocess.CalledProcessError:
        print("the official extension is not installed")
        return
    masks = [np.load(folder / f"{name}.npy")[:160, :160, :160] != 0 for name in ("prediction", "labels")]
    count_features(*(mask[:40, :40, :40].copy() for mask in masks))  # compiles what there is to
    start = time.perf_counter()
    counts = count_features(*(np.ascontiguousarray(mask) for mask in masks))
    seconds = time.perf_counter() - start
    same = counts[:, 0].tolist() == [int(n) for n in official[1:]]
    print(f"one octant: official {float(official[0]):.2f} s, here {seconds:.2f} s, "
          f"{float(official[0]) / seconds:.1f} times faster, counts {'equal' if same else 'DIFFER'}")  # fmt: skip


def folders(folder: Path) -> None:
    cases = [make_pair(EDGE, seed) for seed in range(4)]
    for number in range(VOLUMES):
        for kind, array in zip(("masks", "labels"), cases[number % 4], strict=True):
            path = folder / kind / f"{number}.tif"
            path.parent.mkdir(exist_ok=True)
            write_mask_tiff(path, iter([array]), array.shape, foreground=1)
    took = {}
    for workers in (1, 2):
        start = time.perf_counter()
        in_process("-m", "nx47dask", "score", folder / "masks", folder / "labels", "--workers", workers)
        took[workers] = time.perf_counter() - start
    print(f"{VOLUMES} volumes of {EDGE}³: 1 worker {took[1]:.1f} s, 2 workers {took[2]:.1f} s, "
          f"{took[1] / took[2]:.2f} times faster")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) == 3:
        score_once(sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as name:
            pairs(Path(name))
            octant(Path(name))
            folders(Path(name))

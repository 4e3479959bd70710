"""Peak memory of workers, and of client and scheduler, against the size of the volume.

Runs a workflow on volumes of 1, 8 and 32 times 256³ with one block size, each in a fresh cluster, and prints the
largest peak of a worker, of the client (which holds the scheduler of a local cluster), and their spread::

    python -m tests.benchmarks.bench_memory [--block 96] [--workflow v61.2] [--tiff]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from nx47dask.geometry import Box
from nx47dask.io import ArrayStore
from nx47dask.phantom.render import Phantom, render

SHAPES = ((256, 256, 256), (512, 512, 512), (512, 1024, 1024))


def make_volume(folder: Path, shape: tuple[int, int, int], as_tiff: bool) -> Path:
    """A phantom of 256³ repeated to the shape."""
    path = folder / ("x".join(map(str, shape)) + (".tif" if as_tiff else ".zarr"))
    if path.exists():
        return path
    tile = folder / "tile.npy"
    if not tile.exists():
        np.save(tile, render(Phantom((256,) * 3, seed=3), Box.of_shape((256,) * 3))[0])
    cube = np.load(tile)
    pages = np.tile(cube, (1, shape[1] // 256, shape[2] // 256))
    if as_tiff:
        planes = (pages[z % 256] for z in range(shape[0]))
        tifffile.imwrite(path, planes, shape=shape, dtype=np.uint8, compression="lzw", bigtiff=True)
        return path
    store = ArrayStore(str(path), shape, (128,) * 3, (128,) * 3, "uint8")
    store.create()
    for z in range(0, shape[0], 128):
        store.write(Box((z, 0, 0), (z + 128, *shape[1:])), pages[z % 256 : z % 256 + 128])
    return path


def measure(path: Path, out: Path, workflow: str, block: int) -> dict[str, float]:
    """Run in a process of its own and read the manifest."""
    command = [sys.executable, "-m", "nx47dask", "run", str(path), "--out", str(out), "--overwrite", "--workers", "2"]
    subprocess.run([*command, "--workflow", workflow, "--block", str(block)], check=True, capture_output=True)
    manifest = json.loads((out / "manifest.json").read_text())
    return {
        "worker": max(stage["peak_rss_bytes"] for stage in manifest["stages"].values()) / 2**20,
        "client": manifest["memory"]["client_peak_rss_bytes"] / 2**20,
        "projected": manifest["memory"]["projected_worker_bytes"] / 2**20,
        "seconds": manifest["wall_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=96)
    parser.add_argument("--workflow", default="v61.2")
    parser.add_argument("--tiff", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nx47dask-bench")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for shape in SHAPES:
        volume = make_volume(options.folder, shape, options.tiff)
        rows.append(measure(volume, options.folder / "memory-run", options.workflow, options.block))
        print(shape, "  ".join(f"{key} {value:.0f}" for key, value in rows[-1].items()), "(MiB, s)", flush=True)
    for who in ("worker", "client"):
        peaks = [row[who] for row in rows]
        print(f"{who}: largest / smallest peak {max(peaks) / min(peaks):.3f}   (at most 1.15)")


if __name__ == "__main__":
    main()

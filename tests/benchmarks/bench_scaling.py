"""Speed-up from one worker to two on a compute-bound run, in the order two, one, two.

    python -m tests.benchmarks.bench_scaling [--edge 512] [--workflow surface] [--block 256]

The time is the manifest's, from the first task to the report; starting the cluster is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.bench_memory import make_volume

LIMIT = 1.7


def wall_s(volume: Path, out: Path, workers: int, options: argparse.Namespace) -> float:
    """Run in a process of its own and read the manifest."""
    command = [sys.executable, "-m", "nx47dask", "run", volume, "--out", out, "--overwrite"]
    command += ["--workers", workers, "--workflow", options.workflow, "--block", options.block]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*map(str, command)], check=True, capture_output=True, env=environment)
    return float(json.loads((out / "manifest.json").read_text())["wall_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=512, help="a multiple of 256")
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--workflow", default="surface")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nx47dask-bench")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    volume = make_volume(options.folder, (options.edge,) * 3, as_tiff=False)
    times = []
    for workers in (2, 1, 2):
        times.append(wall_s(volume, options.folder / "scaling-run", workers, options))
        print(f"{workers} workers: {times[-1]:.1f} s", flush=True)
    ratio = times[1] / ((times[0] + times[2]) / 2)
    print(
        f"{options.edge}³, {options.workflow}: {ratio:.2f} times as fast with 2 workers as with 1   (at least {LIMIT})"
    )


if __name__ == "__main__":
    main()

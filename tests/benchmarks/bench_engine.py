"""Engine cost of a block task: 2,000 trivial tasks through the window, the ledger and two workers.

python -m tests.benchmarks.bench_engine [--tasks 2000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from nx47dask.engine import Batch, Ledger, Task, execute
from nx47dask.engine.cluster import open_client
from nx47dask.engine.dask_pool import DaskPool
from nx47dask.engine.events import EventFile, StageStatistics
from nx47dask.engine.spec import LocalSpec
from nx47dask.geometry import Box


def trivial(box: Box, number: int) -> dict[str, int]:
    return {"number_seen": number}


def pipeline(tasks: int):
    box = Box((0, 0, 0), (128, 128, 128))
    batch = (Task(n, f"block {n}", trivial, (box, n), box.size) for n in range(tasks))
    records = yield Batch("trivial", batch, tasks, tasks * box.size)
    return len(records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    tasks = parser.parse_args().tasks
    with open_client(LocalSpec(workers=2)) as client, tempfile.TemporaryDirectory() as folder:
        pool = DaskPool(client)
        for name in ("warm-up", "measured"):
            events = EventFile(Path(folder) / f"{name}.jsonl")
            start = time.perf_counter()
            results, _ = execute({name: pipeline(tasks)}, pool, Ledger(Path(folder)), (events, StageStatistics()))
            elapsed = time.perf_counter() - start
            events.close()
            assert results[name] == tasks
    print(f"{tasks} trivial block tasks in {elapsed:.2f} s: {1000 * elapsed / tasks:.2f} ms each   (at most 4)")


if __name__ == "__main__":
    main()

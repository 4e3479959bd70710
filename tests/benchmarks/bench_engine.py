"""Engine cost of a block task: 2,000 trivial tasks through the window, the ledger and two workers, and bare Dask's.

python -m tests.benchmarks.bench_engine [--tasks 2000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

from distributed import Client, as_completed

from nx47dask.cluster.dask_pool import TASKS_PER_WORKER, DaskPool
from nx47dask.cluster.spec import LocalSpec
from nx47dask.cluster.start import open_client
from nx47dask.engine import Batch, Ledger, Task, execute
from nx47dask.engine.events import EventFile, StageStatistics
from nx47dask.geometry import Box


def trivial(box: Box, number: int) -> dict[str, int]:
    return {"number_seen": number}


def pipeline(tasks: int):
    box = Box((0, 0, 0), (128, 128, 128))
    batch = (Task(n, f"block {n}", trivial, (box, n), box.size) for n in range(tasks))
    records = yield Batch("trivial", batch, tasks, tasks * box.size)
    return len(records)


def bare_dask(client: Client, tasks: int) -> float:
    """Seconds that Dask takes for as many tasks, as many at a time, with nothing recorded."""
    box = Box((0, 0, 0), (128, 128, 128))
    start = time.perf_counter()
    todo = (client.submit(trivial, box, n, key=("bare", n), pure=False) for n in range(tasks))
    running = as_completed(islice(todo, 2 * TASKS_PER_WORKER), loop=client.loop, with_results=True)
    for _ in running:
        running.update(islice(todo, 1))
    return time.perf_counter() - start


def engine(client: Client, tasks: int, folder: Path) -> float:
    events = EventFile(folder / "events.jsonl")
    start = time.perf_counter()
    results, _ = execute({"v": pipeline(tasks)}, DaskPool(client), Ledger(folder), (events, StageStatistics()))
    elapsed = time.perf_counter() - start
    events.close()
    assert results["v"] == tasks
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    tasks = parser.parse_args().tasks
    rounds = []
    with open_client(LocalSpec(workers=2)) as client:
        bare_dask(client, tasks // 10)
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append((engine(client, tasks, Path(folder)), bare_dask(client, tasks)))
    ours, bare = map(median, zip(*rounds, strict=True))
    print(f"{tasks} trivial block tasks in {ours:.2f} s: {1000 * ours / tasks:.2f} ms each   (at most 4)")
    print(f"bare Dask: {1000 * bare / tasks:.2f} ms; ratio {ours / bare:.2f}")


if __name__ == "__main__":
    main()

"""A cluster whose parts are killed, and started again as an operator or a batch system would."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from distributed import Client

from tests.cluster.processes import start_scheduler, start_worker


@dataclass
class ClusterByHand:
    """A scheduler on loopback and single-thread workers, each a process of its own."""

    folder: Path
    workers: int = 2
    worker_options: tuple[object, ...] = ()
    nanny: bool = False
    scheduler: subprocess.Popen | None = field(default=None, init=False)
    crew: list[subprocess.Popen] = field(default_factory=list, init=False)
    file: Path = field(init=False)
    address: str = field(default="", init=False)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.kill_workers()
        self.kill_scheduler()

    def start(self):
        """A new scheduler with a whole crew."""
        (self.folder / "scheduler.json").unlink(missing_ok=True)
        self.file, self.address, self.scheduler = start_scheduler(self.folder)
        for _ in range(self.workers):
            self.start_worker()
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(self.workers, timeout=60)

    def start_worker(self):
        self.crew.append(start_worker(self.address, self.folder, *self.worker_options, nanny=self.nanny))

    def kill_worker(self, number):
        """SIGKILL, for a nanny and the worker below it."""
        worker = self.crew.pop(number)
        for process in (worker, *psutil.Process(worker.pid).children(recursive=True)):
            process.send_signal(signal.SIGKILL)
        worker.wait(timeout=30)

    def kill_workers(self):
        while self.crew:
            self.kill_worker(0)

    def kill_scheduler(self):
        self.scheduler.kill()
        self.scheduler.wait(timeout=30)

"""Client's side of the page of a running job: an observer that sends the events of the run to the scheduler.

A separate thread sends all changes twice a second, as one event of Dask's log. So a task costs the run a few
microseconds, and a scheduler that is slow or gone costs nothing.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from asyncio import CancelledError
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

from distributed import Client

from nx47dask.engine.events import JobTitle, Observer, StageStatistics
from nx47dask.engine.ledger import Record
from nx47dask.engine.tasks import Batch, Failure
from nx47dask.monitor.routes import NAME, TOPIC, MonitorPlugin
from nx47dask.monitor.state import DONE, QUARANTINED, REPEATED, RETRYING, SKIPPED

__all__ = ["JobFeed", "watched"]

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_MESSAGES = 0.5
CLOSING_S = 5.0
TRACEBACK_CHARACTERS = 8000
MOST_ERRORS_A_MESSAGE = 50


@contextmanager
def watched(client: Client, title: JobTitle) -> Iterator[tuple[list[Observer], str]]:
    """Show a page of a job on the scheduler's dashboard server while the context lasts.

    Yields
    ------
    observers : list of Observer
        Observers that feed the page; empty where the scheduler cannot show a page.
    link : str
        Address of the page; empty without a page.
    """
    try:
        client.register_plugin(MonitorPlugin())
    except (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
        # The scheduler has no nx47dask, another release of it, or takes no plugins.
        logger.warning("no page of the job: the scheduler cannot show it (%s: %s)", type(error).__name__, error)
        yield [], ""
        return
    with JobFeed(client, title) as feed:
        yield [feed], urljoin(client.dashboard_link, NAME)


class JobFeed(Observer):
    """Observer that sends a job's events to the scheduler's :class:`~nx47dask.monitor.routes.MonitorPlugin`.

    Parameters
    ----------
    client : distributed.Client
    title : JobTitle
    """

    def __init__(self, client: Client, title: JobTitle) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._statistics = StageStatistics()
        self._written_bytes: dict[str, int] = defaultdict(int)
        self._retried: set[tuple[str, str, int]] = set()
        self._job, self._sent = uuid.uuid4().hex[:12], 0
        self._clear()
        self._opening = {"client": client.id, "title": asdict(title)}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="nx47dask-page", daemon=True)

    def __enter__(self) -> JobFeed:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        words = str(error) or type(error).__name__ if error else ""
        with self._lock:
            self._others["ended"] = ["stopped" if error else "done", words[:TRACEBACK_CHARACTERS]]
        self._over.set()
        self._thread.join(CLOSING_S)

    def stage_started(self, volume: str, batch: Batch) -> None:
        with self._lock:
            self._statistics.stage_started(volume, batch)
            self._stages.append([volume, batch.stage, batch.count, batch.grid and list(batch.grid)])

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        stage, number = record["stage"], record["number"]
        state = SKIPPED if record.get("skipped") else DONE
        with self._lock:
            if (volume, stage, number) in self._retried:
                state = REPEATED
            self._blocks[volume, stage][number] = state
            self._statistics.task_finished(volume, record, voxels, resumed)
            self._touched.add(stage)
            if not resumed:
                self._written_bytes[stage] += sum(record.get("files", {}).values())
            if record.get("last"):
                self._written.append(volume)

    def task_failed(self, volume: str, failure: Failure) -> None:
        told = {"time_s": time.time(), "volume": volume, **asdict(failure)}
        told["traceback"] = failure.traceback[-TRACEBACK_CHARACTERS:]
        with self._lock:
            self._retried.add((volume, failure.stage, failure.number))
            self._blocks[volume, failure.stage][failure.number] = QUARANTINED if failure.final else RETRYING
            self._statistics.task_failed(volume, failure)
            self._touched.add(failure.stage)
            if len(self._errors) < MOST_ERRORS_A_MESSAGE or failure.final:
                self._errors.append(told)

    def _clear(self) -> None:
        self._stages: list[list[Any]] = []
        self._blocks: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        self._written: list[str] = []
        self._errors: list[dict[str, Any]] = []
        self._touched: set[str] = set()
        self._others: dict[str, Any] = {}

    def _take(self) -> dict[str, Any]:
        """Return the next message, with everything since the last one; empty if nothing happened."""
        with self._lock:
            sums = self._statistics.records()
            changes = {
                "stages": self._stages,
                "blocks": [[*of, [*states], bytes(states.values())] for of, states in self._blocks.items()],
                "sums": {
                    stage: {**sums[stage], "written_bytes": self._written_bytes[stage]} for stage in self._touched
                },
                "written": self._written,
                "errors": self._errors,
                **self._others,
            }
            self._clear()
        message = {key: value for key, value in changes.items() if value}
        if self._sent == 0:
            message.update(self._opening)
        elif not message:
            return {}
        self._sent += 1
        return {"job": self._job, "number": self._sent, "time_s": time.time(), **message}

    def _send(self) -> None:
        """Send messages twice a second until the end of the job or of the scheduler."""
        message: dict[str, Any] = {}
        over = False
        while not over:
            over = self._over.wait(SECONDS_BETWEEN_MESSAGES if self._sent else 0)
            message = message or self._take()
            while message:
                if not self._told(message):
                    if self._over.is_set() or self._client.status not in ("running", "connecting"):
                        return
                    break  # the same message is sent again: the scheduler recognises it by its number
                message = self._take() if over else {}

    def _told(self, message: dict[str, Any]) -> bool:
        try:
            self._client.log_event(TOPIC, message)
        except (OSError, RuntimeError, AttributeError, CancelledError) as error:  # closed, or closing, meanwhile
            logger.info("the page of the job was not told: %s", error)
            return False
        return True

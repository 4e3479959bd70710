"""Page of a running job on Dask's own dashboard server, and its counters for Prometheus.

A scheduler plugin keeps the state of the jobs; HTTP routes show it. Dask takes the routes from the configuration key
``distributed.scheduler.http.routes``, which lists modules. If this module is not in the list, the plugin adds the
routes.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice
from typing import Any

import dask
from distributed import SchedulerPlugin
from tornado.web import RequestHandler

from nx47dask.monitor.counters import job_metrics, register, unregister
from nx47dask.monitor.names import ROUTES_KEY
from nx47dask.monitor.state import Jobs

__all__ = ["NAME", "TOPIC", "MonitorPlugin", "routes"]

logger = logging.getLogger(__name__)

NAME = "nx47dask"
TOPIC = "nx47dask-job"
ASSETS = {
    "report.css": ("reports/style.css", "text/css"),
    "page.css": ("monitor/page/page.css", "text/css"),
    "page.js": ("monitor/page/page.js", "text/javascript"),
    "map.js": ("monitor/page/map.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


class MonitorPlugin(SchedulerPlugin):
    """Scheduler plugin that keeps the state of jobs, sent by clients; see :class:`nx47dask.monitor.feed.JobFeed`."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.jobs = Jobs()
        self._collector: Any = None

    async def start(self, scheduler: Any) -> None:
        if __name__ not in dask.config.get(ROUTES_KEY):
            # Under any prefix, because a scheduler does not give its own.
            added = [(rf"/(?:.*/)?{path}", kind, {"dask_server": scheduler}) for path, kind, _ in routes]
            scheduler.http_application.add_handlers(r".*", added)
        _add_to_menu(scheduler)
        self._collector = register(lambda: job_metrics(self.jobs))

    async def close(self) -> None:
        unregister(self._collector)

    def log_event(self, topic: str, msg: Any) -> None:
        if topic == TOPIC:
            self.jobs.apply(msg)

    def remove_client(self, scheduler: Any, client: str) -> None:
        self.jobs.lose(client, time.time())


def _add_to_menu(scheduler: Any) -> None:
    """Add the page to the menu of Dask's pages, on a scheduler that has one."""
    pages = sys.modules.get("distributed.dashboard.scheduler")
    variables = getattr(pages, "template_variables", None)
    # All pages share the dictionary that this returns. It is undocumented; without it only the link is missing.
    menu = variables(scheduler).get("pages") if variables else None
    if isinstance(menu, list) and NAME not in menu:
        menu.append(NAME)


class _Handler(RequestHandler):
    """Base of the handlers: holds the scheduler, and sets headers that forbid content from other servers."""

    def initialize(self, dask_server: Any) -> None:
        self.scheduler = dask_server

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")


class PageHandler(_Handler):
    """Handler of the page."""

    def get(self) -> None:
        self.finish(_text("monitor/page/page.html"))


class AssetHandler(_Handler):
    """Handler of the page's styles and scripts."""

    def get(self, name: str) -> None:
        path, kind = ASSETS[name]
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.finish(_text(path))


class StateHandler(_Handler):
    """Handler of the state of a job as JSON; with ``since``, only of the changes after an earlier answer."""

    def get(self) -> None:
        plugin = self.scheduler.plugins.get(NAME)
        jobs = plugin.jobs if plugin else Jobs()
        chosen, wanted, shown = (self.get_query_argument(name, None) for name in ("job", "volume", "shown"))
        job = jobs.choose(chosen)
        since = self.get_query_argument("since", "0")
        known = int(since) if since.isdecimal() and int(since) <= jobs.changes else 0
        running = {worker.address: list(_tasks(worker, job.client)) for worker in self._workers()} if job else {}
        by_stage: dict[tuple[str, str], list[int]] = {}
        for volume, stage, number in (task for tasks in running.values() for task in tasks):
            by_stage.setdefault((volume, stage), []).append(number)
        state = {
            "changes": jobs.changes,
            "jobs": jobs.names(),
            "job": job.answer(known, wanted, shown, time.time(), by_stage) if job else None,
            "workers": [_worker(worker, running.get(worker.address, [])) for worker in self._workers()],
        }
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(state, separators=(",", ":")))

    def _workers(self) -> list[Any]:
        return list(self.scheduler.workers.values())


def _tasks(worker: Any, client: str) -> Iterator[tuple[str, str, int]]:
    """Yield volume, stage and number of the tasks of a client that a worker runs: the first that it was given."""
    for task in islice(worker.processing, worker.nthreads):
        key = task.key
        clients = {state.client_key for state in task.who_wants or ()}
        if isinstance(key, tuple) and len(key) == 4 and client in clients:
            group, volume, number, _ = key
            yield volume, group.rpartition("-")[0], number


def _worker(worker: Any, running: list[tuple[str, str, int]]) -> dict[str, Any]:
    """Describe a worker: its memory in bytes, the tasks that it runs, and its GPU from Dask's metrics."""
    used, card = worker.metrics.get("gpu") or {}, worker.extra.get("gpu") or {}
    return {
        "name": str(worker.name),
        "host": worker.host,
        "memory_bytes": worker.metrics.get("memory", 0),
        "limit_bytes": worker.memory_limit,
        "running": running,
        "gpu": {
            "name": card.get("name"),
            "memory_bytes": used.get("memory-used"),
            "limit_bytes": card.get("memory-total"),
            "busy": used.get("utilization"),
        }
        if used
        else None,
    }


def _text(path: str) -> str:
    return files("nx47dask").joinpath(path).read_text(encoding="utf-8")


routes: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [
    (NAME, PageHandler, {}),
    (f"{NAME}/state.json", StateHandler, {}),
    (rf"{NAME}/({'|'.join(name.replace('.', '[.]') for name in ASSETS)})", AssetHandler, {}),
]
"""Routes of this module, in the form that Dask expects of a module of HTTP routes."""

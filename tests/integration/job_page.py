"""A made-up job and a server with the real handlers of its page, without a cluster."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from nx47dask.monitor.routes import NAME, MonitorPlugin, StateHandler, routes
from nx47dask.monitor.state import DONE, QUARANTINED, REPEATED, RETRYING, SKIPPED, STATES

STAGES = ("ingest", "detect", "postprocess.1", "measure", "export")
HOSTILE = "<img src=x onerror=alert(1)>&\"'"
CLIENT = "Client-1"

# A page around the job's page, in a window of any width; it leaves what it sees when the first answer is shown.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<iframe src="/{prefix}nx47dask" width="{width}" height="{height}"></iframe>
<script>
const inside = () => document.querySelector("iframe").contentDocument;
const wait = setInterval(() => {{
  if (!inside()?.documentElement?.dataset.changes) return;
  clearInterval(wait);
  const all = (query) => [...inside().querySelectorAll(query)];
  const visible = (query) => all(query).filter((e) => e.getClientRects().length);
  const texts = (query) => visible(query).map((e) => e.textContent);
  const page = inside().documentElement;
  const seen = {{
    widths: [page.scrollWidth, page.clientWidth, document.querySelector("iframe").contentWindow.innerWidth],
    title: inside().title,
    verdict: texts(".verdict")[0],
    figures: texts("#figures div"),
    warnings: texts("#warnings li"),
    legend: texts("#legend .key"),
    maps: texts("#maps figcaption"),
    labels: visible("#maps canvas").map((e) => e.getAttribute("aria-label")),
    chips: texts(".chip"),
    stages: texts("#stages tr"),
    workers: texts("#workers tr"),
    errors: texts("#errors summary"),
    images: all("img, script:not([src])").length,
    nodes: all("*").length,
  }};
  const canvas = visible("#maps canvas")[0];
  if (canvas) {{
    canvas.dispatchEvent(new KeyboardEvent("keydown", {{ key: "ArrowRight" }}));
    canvas.dispatchEvent(new KeyboardEvent("keydown", {{ key: "ArrowDown" }}));
    seen.pointed = texts("#pointed")[0];
    canvas.dispatchEvent(new FocusEvent("blur"));
  }}
  const left = document.createElement("script");
  Object.assign(left, {{ type: "application/json", id: "seen", textContent: JSON.stringify(seen) }});
  document.body.append(left);
}}, 50);
</script>"""


class FrameHandler(RequestHandler):
    def get(self):
        width, height = self.get_query_argument("width"), self.get_query_argument("height")
        self.finish(FRAME.format(width=width, height=height, prefix=self.get_query_argument("prefix", "")))


class TiredHandler(StateHandler):
    """Answers so many times; then the server is as good as gone."""

    def initialize(self, dask_server, answers):
        super().initialize(dask_server)
        self.answers = answers

    def prepare(self):
        if not self.answers:
            raise HTTPError(503)
        self.answers.pop()


def opening(volumes, name="scroll_a", job="job-1"):
    """The first message of a job."""
    title = {"name": name, "out": f"runs/{name}", "workflow": "surface", "volumes": volumes, "stages": STAGES}
    return {"job": job, "number": 1, "time_s": time.time() - 3600, "client": CLIENT, "title": title}


def sums(tasks, task_s=2.0, voxels=2_000_000, **others):
    """Totals of a stage as the feed sends them."""
    nothing = dict.fromkeys(("resumed", "skipped", "retried", "quarantined", "written_bytes"), 0)
    return {"tasks": tasks, "task_s": tasks * task_s, "voxels": tasks * voxels, **nothing, **others}


def error(volume, stage, number, *, final, message="could not be read"):
    return {
        "time_s": time.time() - 60,
        "volume": volume,
        "stage": stage,
        "number": number,
        "place": f"block {number} [0:256,256:512,0:256]",
        "attempt": 3 if final else 1,
        "message": f"{volume}, {stage}, block {number}: {message}",
        "traceback": 'Traceback (most recent call last):\n  File "detect.py", line 80, in detect_block\n' + message,
        "final": final,
    }


def states_of(count, shares, seed=0):
    """States of a map whose blocks went mostly in order, those of empty space in one piece."""
    rng = np.random.default_rng(seed)
    states = np.zeros(count, np.uint8)
    reached = int(count * shares)
    states[:reached] = DONE
    late = rng.integers(max(1, reached - 40), reached, 60)
    states[late[late % 3 == 0]] = 0
    states[rng.integers(0, reached, max(1, count // 900))] = REPEATED
    return states


def scroll(plugin):
    """One volume with 10,240 blocks in a stage, in all states."""
    grid = [40, 16, 16]
    count = 10_240
    tell(plugin, opening(["PHerc-0332"]))
    maps = []
    for stage, share in (("ingest", 1.0), ("ingest.statistics", 1.0), ("detect", 1.0), ("postprocess.1", 0.46)):
        single = stage == "ingest.statistics"
        states = np.full(1, DONE, np.uint8) if single else states_of(count, share, seed=len(stage))
        if not single:
            states[states == 0] = DONE if share == 1 else 0
            z, y, x = np.indices(grid).reshape(3, -1)
            empty = (y - 7.5) ** 2 + (x - 7.5) ** 2 > 62 + 3 * np.sin(z / 4)
            states[empty & (states == DONE)] = SKIPPED
        maps.append((stage, None if single else grid, states))
    maps[-1][2][[3000, 3001, 4100]] = QUARANTINED
    maps[-1][2][[2500, 4200]] = RETRYING
    tell(plugin, {"stages": [["PHerc-0332", stage, len(states), grid] for stage, grid, states in maps]})
    for stage, _, states in maps:
        counts = np.bincount(states, minlength=len(STATES)).tolist()
        told = sums(counts[DONE], skipped=counts[SKIPPED], retried=counts[REPEATED], quarantined=counts[QUARANTINED])
        tell(plugin, put("PHerc-0332", stage, states) | {"sums": {stage: told}})
    failures = [error("PHerc-0332", "postprocess.1", n, final=True, message=HOSTILE) for n in (3000, 3001, 4100)]
    failures.append(error("PHerc-0332", "postprocess.1", 4200, final=False))
    tell(plugin, {"errors": failures})
    workers(plugin, 4, [("PHerc-0332", "postprocess.1", 4720 + n) for n in range(4)], gpu=True)


def campaign(plugin):
    """120 volumes of 27 blocks in all stages of their lives."""
    names = [f"{1407735000 + 7 * n}" for n in range(119)] + [HOSTILE]
    tell(plugin, opening(names, "kaggle"))
    for n, name in enumerate(names[:64]):
        stages = STAGES if n < 52 else STAGES[: 2 + n % 3]
        tell(
            plugin,
            {
                "stages": [
                    [name, stage, 1 if stage == "export" else 27, None if stage == "export" else [3, 3, 3]]
                    for stage in stages
                ]
            },
        )
        for stage in stages:
            count = 1 if stage == "export" else 27
            states = np.full(count, DONE, np.uint8)
            if n >= 52 and stage == stages[-1]:
                states[(64 - n) * 2 :] = 0
            if n == 17 and stage == "measure":
                states[5] = REPEATED
            if n == 30 and stage == "detect":
                states[4] = QUARANTINED
            tell(plugin, put(name, stage, states))
        if n < 52 and n != 30:
            tell(plugin, {"written": [name]})
    tell(plugin, {"sums": {stage: sums(40 if stage == "export" else 27 * 55, 1.5) for stage in STAGES}})
    tell(plugin, {"errors": [error(names[30], "detect", 4, final=True)]})
    workers(plugin, 12, [(names[53], "postprocess.1", 24)])


def put(volume, stage, states):
    return {"blocks": [[volume, stage, list(range(len(states))), states.tobytes()]]}


def tell(plugin, message):
    """Number a message and give it to the plugin as Dask does."""
    number = plugin.jobs.changes + 1
    plugin.log_event("nx47dask-job", {"job": "job-1", "time_s": time.time(), **message, "number": number})


def workers(plugin, number, running, gpu=False):
    """As many workers as asked for, with tasks for the first of them."""
    plugin.workers = {
        f"tcp://10.0.0.{n}:4000": SimpleNamespace(
            name=f"node-{n // 4}-gpu-{n % 4}" if gpu else n,
            host=f"10.0.0.{n}",
            address=f"tcp://10.0.0.{n}:4000",
            nthreads=1,
            memory_limit=16 << 30,
            metrics={
                "memory": (3 + 4 * n % 13) << 30,
                **({"gpu": {"utilization": 97 - 11 * n, "memory-used": (20 + 18 * n) << 30}} if gpu else {}),
            },
            extra={"gpu": {"memory-total": 80 << 30, "name": "NVIDIA H100"}} if gpu else {},
            processing={task(*one): 1.0 for one in running[n : n + 1]},
        )
        for n in range(number)
    }


def task(volume, stage, number):
    who = SimpleNamespace(client_key=CLIENT)
    return Task(key=(f"{stage}-1a2b3c4d", volume, number, 1), who_wants=[who])


class Task(SimpleNamespace):
    """Can be a key, as Dask's tasks are."""

    __hash__ = object.__hash__


@contextmanager
def served(fill, prefix="", answers=1000):
    """Address of a server of the page over a plugin that ``fill`` has told a story; it answers so many times."""
    plugin = MonitorPlugin()
    plugin.workers = {}
    fill(plugin)
    scheduler = SimpleNamespace(plugins={NAME: plugin}, workers=plugin.workers)
    ready, stop, found = threading.Event(), [], []

    async def serve():
        handlers = [(f"/{prefix}{path}", kind, {"dask_server": scheduler}) for path, kind, _ in routes]
        tired = (f"/{prefix}{NAME}/state.json", TiredHandler, {"dask_server": scheduler, "answers": [None] * answers})
        server = HTTPServer(Application([tired, *handlers, ("/frame", FrameHandler)]))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        over = asyncio.Event()
        stop.append((asyncio.get_running_loop(), over))
        found.append(f"http://127.0.0.1:{sockets[0].getsockname()[1]}")
        ready.set()
        await over.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield found[0]
    finally:
        loop, over = stop[0]
        loop.call_soon_threadsafe(over.set)
        thread.join(30)

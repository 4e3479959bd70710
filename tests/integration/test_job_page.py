"""The page of a running job: in a real browser, on a cluster's dashboard while it runs, and for Prometheus."""

from __future__ import annotations

import html
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from nx47dask.cluster.pool import open_pool
from nx47dask.cluster.spec import read_cluster
from nx47dask.engine import Batch, Task, execute
from nx47dask.engine.events import JobTitle
from tests.integration.job_page import HOSTILE, STAGES, campaign, scroll, served
from tests.integration.test_report_page import BROWSER, FLAGS

PACKAGE = Path(__file__).resolve().parents[2] / "nx47dask"
TITLE = JobTitle("scroll_b", "runs/scroll_b", "fast", ("one", "two"), ("detect", "export"))
HIDDEN = "import sys; sys.modules['nx47dask.monitor.routes'] = None; "


def browse(tmp_path, address, *flags):
    """What Chromium prints after four seconds of the page's own time, and what it logged."""
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [BROWSER, *FLAGS, profile, "--hide-scrollbars", "--virtual-time-budget=4000", *flags, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def see(tmp_path, fill, width, prefix=""):
    """What the page shows in a window of a width, over a made-up job."""
    with served(fill, prefix) as base:
        printed, console = browse(
            tmp_path, f"{base}/frame?width={width}&height=900&prefix={prefix}", "--window-size=1300,900", "--dump-dom"
        )
    assert console == []
    return json.loads(html.unescape(re.search(r'id="seen">(.*?)</script>', printed, re.DOTALL)[1]))


@pytest.mark.parametrize("width", [360, 1200])
def test_page_shows_every_state_of_a_scroll(tmp_path, width):
    seen = see(tmp_path, scroll, width)
    assert seen["widths"] == [width] * 3, "the page is wider than the window"
    assert re.match(r"Running54 % of the work is done, at least \d+ min left", seen["verdict"])
    assert seen["title"] == "54 % scroll_a"
    counts = {words.rpartition(" ")[0]: int(words.rpartition(" ")[2].replace(",", "")) for words in seen["legend"]}
    assert list(counts) == [
        *("waiting", "running", "retrying", "done", "done after a retry"),
        *("skipped", "quarantined"),
    ]
    assert min(counts.values()) > 0
    assert sum(counts.values()) == 3 * 10_240 + 1
    assert [caption.split()[0] for caption in seen["maps"]] == ["postprocess.1", "detect", "ingest"]
    assert seen["nodes"] < 500, "blocks are drawn, not elements"
    assert seen["pointed"].startswith("postprocess.1, block 16 at z 0, y 1, x 0: ")
    assert "3 quarantined" in seen["labels"][0]
    assert [row.startswith(stage) for row, stage in zip(seen["stages"], ["ingest", "ingest.statistics"], strict=False)]
    assert seen["stages"][-1].startswith("exportnot begun")
    assert "node-0-gpu-0" in seen["workers"][0]
    assert seen["workers"][0].endswith("97 %postprocess.1 4720")
    assert "GPU" not in seen["warnings"][0]
    assert "3 blocks failed in every try" in seen["warnings"][0]
    assert sum(HOSTILE in error for error in seen["errors"]) == 3
    assert seen["images"] == 0, "words of a job are never markup"


@pytest.mark.parametrize("width", [360, 1200])
def test_page_lists_many_volumes(tmp_path, width):
    seen = see(tmp_path, campaign, width)
    assert seen["widths"] == [width] * 3
    assert len(seen["chips"]) == 120
    assert "1 block quarantined" in seen["chips"][0], "what failed comes first"
    assert seen["chips"][-1].endswith("doneall stages")
    assert "51 of 120" in seen["figures"][0]
    assert len(seen["workers"]) == 12
    assert any(chip.startswith(HOSTILE) for chip in seen["chips"])
    assert seen["images"] == 0
    assert [row[: len(stage)] for row, stage in zip(seen["stages"], STAGES, strict=True)] == list(STAGES)


def test_page_works_below_a_proxy(tmp_path):
    assert see(tmp_path, scroll, 1200, prefix="user/me/proxy/8787/")["maps"]


@pytest.mark.parametrize(("scheme", "paper"), [("light", (255, 255, 255)), ("dark", (0x15, 0x18, 0x1C))])
def test_page_is_painted_in_light_and_dark(tmp_path, scheme, paper):
    picture = tmp_path / "page.png"
    flags = [f"--screenshot={picture}", "--window-size=1200,1000"]
    if scheme == "dark":
        flags.append("--blink-settings=preferredColorScheme=0")
    with served(scroll) as base:
        _, console = browse(tmp_path, f"{base}/nx47dask", *flags)
    assert console == []
    pixels = Image.open(picture).convert("RGB")
    assert pixels.getpixel((2, 2)) == paper
    painted = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in pixels.getcolors(1 << 24)}
    assert set(colours_of(scheme == "dark").values()) <= painted


def test_page_says_that_the_connection_is_lost(tmp_path):
    with served(scroll, answers=2) as base:
        printed, _ = browse(tmp_path, f"{base}/nx47dask", "--virtual-time-budget=20000", "--dump-dom")
    assert "Connection lost at " in printed
    assert "nx47dask status RUN" in printed
    assert "postprocess.1, block 4200" in printed, "what was seen last stays"


# What a colour becomes for an eye that lacks one kind of cone (Machado, Oliveira, Fernandes 2009, severity 1), in
# linear RGB; and CIE XYZ of linear sRGB.
EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
XYZ = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
STATES_SHOWN = ("waiting", "running", "retrying", "done", "repeated", "skipped", "quarantined")


def colours_of(scheme):
    """Colours of the states in light (0) or dark (1)."""
    css = (PACKAGE / "engine" / "page" / "page.css").read_text()
    found = dict(re.findall(r"--(\w+): (#\w{6})", css.split("@media")[scheme]))
    return {name: found[name] for name in STATES_SHOWN}


def lab(colour, eye):
    rgb = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(np.array(EYES[eye]) @ linear, 0, 1) / [0.9505, 1, 1.0888])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_of_states_are_apart_for_every_eye(scheme, eye):
    seen = [lab(colour, eye) for colour in colours_of(scheme).values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 13  # 2 can just be told apart


def test_scripts_make_no_html():
    for path in (PACKAGE / "engine" / "page").glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", path.read_text())


def get(address):
    with urlopen(address, timeout=20) as answer:
        return answer.read().decode(), dict(answer.headers)


def state(link, query=""):
    return json.loads(get(f"{link}/state.json{query}")[0])


def link_in(console):
    return re.search(r"job (http\S+)", console.file.getvalue())[1]


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def block(gate, number):
    """Done once the gate of its number is open; the seventh never succeeds."""
    while number > 7 and not Path(gate).exists():
        time.sleep(0.01)
    if number == 7:
        raise ValueError("no such chunk: <b>7</b>")
    return {"files": {"masks/one": 1000}}


def pipeline(gate, count=16):
    tasks = (Task(n, f"block {n} [0:8,0:8,0:8]", block, (str(gate), n), 512) for n in range(count))
    yield Batch("detect", tasks, count, 512 * count, (4, 2, 2))


def iter_batch(tasks):
    yield Batch("detect", tasks, len(tasks), 0)


def until(found):
    """The first value that is true; fails when there is none in time."""
    deadline = time.monotonic() + 60
    while not (value := found()):
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
    return value


def watch(link, gate):
    """What the page and /metrics say in the middle of the run; lets the run go on."""

    def middle():
        job = state(link)["job"]
        states = job["maps"]["detect"]["states"] if job and job["maps"] else ""
        return job if states[:8] == "22222221" and job["maps"]["detect"]["running"] else None

    try:
        return until(middle), state(link)["workers"], get(urljoin(link, "metrics"))[0], get(link)
    finally:
        gate.touch()


def test_page_of_a_real_run(tmp_path, console, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nx47dask.engine.window.RETRY_AFTER_S", (0.0, 0.0))
    gate, seen = tmp_path / "gate", []
    with open_pool(read_cluster(None, 1), console, None, TITLE) as pool:
        link = link_in(console)
        watcher = threading.Thread(target=lambda: seen.append(watch(link, gate)))
        watcher.start()
        execute({"one": pipeline(gate)}, pool)
        watcher.join(90)
        last = until(lambda: (job := state(link)["job"])["maps"]["detect"]["states"] == "22222225" + "2" * 8 and job)
        menu, at_end = get(urljoin(link, "status"))[0], get(urljoin(link, "metrics"))[0]
    job, workers, metrics, (page, headers) = seen[0]
    assert (job["name"], job["state"], job["volume"]) == ("scroll_b", "running", "one")
    assert job["maps"]["detect"]["running"][0] >= 8
    assert [error["attempt"] for error in job["errors"]] == [1]
    assert [error["attempt"] for error in last["errors"]] == [1, 2, 3]
    assert "no such chunk: <b>7</b>" in job["errors"][-1]["traceback"]
    assert workers[0]["running"][0][:2] == ["one", "detect"]
    assert 0 < workers[0]["memory_bytes"] < workers[0]["limit_bytes"]
    assert last["stages"][0]["quarantined"] == 1
    for line in (
        'nx47dask_blocks_total{run="scroll_b",stage="detect",state="done"} 7.0',
        'nx47dask_blocks_left{run="scroll_b",stage="detect",state="retrying"} 1.0',
        'nx47dask_retries_total{run="scroll_b",stage="detect"} 1.0',
        'nx47dask_voxels_total{run="scroll_b",stage="detect"} 3584.0',
        'nx47dask_written_bytes_total{run="scroll_b",stage="detect"} 7000.0',
        'nx47dask_running{run="scroll_b"} 1.0',
    ):
        assert line in metrics
    assert 'nx47dask_blocks_total{run="scroll_b",stage="detect",state="quarantined"} 1.0' in at_end
    assert 'nx47dask_retries_total{run="scroll_b",stage="detect"} 2.0' in at_end
    assert "nx47dask_task_seconds_total" in metrics
    assert "state.json" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert 'href="nx47dask"' in menu, "Dask's menu names the page"


def test_counters_go_with_the_cluster(tmp_path, console, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from prometheus_client import REGISTRY, generate_latest

    with open_pool(read_cluster(None, 1), console, None, TITLE):
        until(lambda: b"nx47dask_running" in generate_latest(REGISTRY))
    assert b"nx47dask" not in generate_latest(REGISTRY)


def start(folder, *, prefix="", hidden=False):
    """A scheduler and a worker started by hand; the scheduler file and the processes."""
    file = folder / "scheduler.json"
    code = f"{HIDDEN if hidden else ''}from distributed.cli.dask_scheduler import main; main()"
    options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", file]
    options += ["--dashboard-prefix", prefix] if prefix else []
    worker = ["-m", "distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", "1", "--no-nanny"]
    commands = [["-c", code, *options], [*worker, "--no-dashboard", "--local-directory", folder]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = []
    for command in commands:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen([sys.executable, *map(str, command)], env=environment, **silent))
        until(lambda: file.exists() and file.read_text().endswith("}"))
    return str(file), processes


def end(processes):
    for process in processes:
        process.kill()
        process.wait(30)


def test_page_on_a_scheduler_that_runs_already(tmp_path, console):
    file, processes = start(tmp_path, prefix="proxy/1")
    try:
        with open_pool(read_cluster(file), console, None, TITLE) as pool:
            link = link_in(console)
            (tmp_path / "gate").touch()
            execute({"one": pipeline(tmp_path / "gate", 4)}, pool)
        link = link.replace("/nx47dask", "/proxy/1/nx47dask") if "/proxy/1/" not in link else link
        job = state(link)["job"]
        assert (job["state"], job["maps"]["detect"]["states"]) == ("done", "2222")
        assert "page.js" in get(link)[0]
        assert get(f"{link}/page.js")[1]["Content-Type"].startswith("text/javascript")
        assert "nx47dask_blocks_total" in get(urljoin(link, "metrics"))[0]
        with open_pool(read_cluster(file), console, None, TITLE):
            until(lambda: len(state(link)["jobs"]) == 2)
        with pytest.raises(HTTPError):
            get(f"{link}/monitor.py")
    finally:
        end(processes)


def test_run_goes_on_where_the_scheduler_has_no_page(tmp_path, console, caplog):
    file, processes = start(tmp_path, hidden=True)
    try:
        with open_pool(read_cluster(file), console, None, TITLE) as pool:
            tasks = [Task(n, f"block {n}", dict, ((("n", n),),)) for n in range(3)]
            results, errors = execute({"one": iter_batch(tasks)}, pool)
    finally:
        end(processes)
    assert (list(results), errors) == (["one"], {})
    assert "job http" not in console.file.getvalue()
    assert len([record for record in caplog.records if "no page of the job" in record.message]) == 1

"""The report in a real browser: its pictures load, its controls work, it logs no error, it fits the window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import tifffile

import nx47dask
from nx47dask.io import discover
from nx47dask.reports.write import write_report
from tests.conftest import sheets
from tests.integration.commands import command, write_workflow

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
)

# Runs in a copy of the report and leaves what it sees in the page.
PROBE = """
<script>
addEventListener("load", () => {
  const all = (query, inside = document) => [...inside.querySelectorAll(query)];
  const visible = (one) => one.getClientRects().length > 0;
  const one = (query) => all(query).find(visible);
  const texts = (query) => all(query).filter(visible).map((e) => e.textContent);
  const set = (control, value) => {
    control.value = value;
    control.dispatchEvent(new Event(control.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
  };
  const look = () => ({
    at: texts(".planes figcaption b"),
    spoken: one(".plane input").getAttribute("aria-valuetext"),
    cursor: Number(one("svg.curve .cursor").getAttribute("x1")),
    volumes: texts("section.volume h2"),
  });
  const overlay = () => {
    const style = getComputedStyle(one(".overlay img + img"));
    return style.visibility === "hidden" ? "hidden" : style.filter;
  };
  const rows = () => all("table.sortable tbody tr").map((row) => row.cells[0].textContent);
  const sort = (column) => {
    const head = document.querySelector("table.sortable").tHead.rows[0].cells[column];
    head.querySelector("button").focus();
    document.activeElement.click();
    return [head.getAttribute("aria-sort"), ...rows()];
  };
  const seen = {
    widths: [document.documentElement.scrollWidth, document.documentElement.clientWidth, innerWidth],
    pictures: all("img").map((i) => [i.naturalWidth, i.naturalHeight, i.complete]),
    curves: all("svg.curve .line").filter(visible).map((l) => l.getBoundingClientRect().width),
    requests: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
    start: look(),
  };
  set(one(".plane input"), 0);
  seen.slid = look();
  seen.overlays = [overlay(), ...["prediction", "nothing"].map((n) => (one(`#show-${n}`).click(), overlay()))];
  set(one("#pick"), "volume-1");
  seen.picked = look();
  location.hash = "#volume-0";
  dispatchEvent(new HashChangeEvent("hashchange"));
  seen.linked = look();
  seen.sorted = [sort(0), sort(0), sort(1), sort(1)];
  document.body.innerHTML = "<pre id=seen></pre>";
  document.querySelector("#seen").textContent = JSON.stringify(seen);
});
</script>
"""

# A page around the report, which is in a window of any width, with scripts or without.
AROUND = """
<!DOCTYPE html><iframe {attributes} height="900" srcdoc="{report}"></iframe>
<script>
addEventListener("load", () => {{
  const inside = document.querySelector("iframe").contentDocument;
  const visible = (query) => [...inside.querySelectorAll(query)].filter((e) => e.getClientRects().length).length;
  const page = inside.documentElement;
  const seen = {{
    widths: [page.scrollWidth, page.clientWidth, inside.defaultView.innerWidth],
    curves: [...inside.querySelectorAll("section.on svg.curve")].map((e) => e.getBoundingClientRect().width),
    volumes: visible("section.volume"),
    frames: [visible(".frames figure"), inside.querySelectorAll(".frames figure").length],
    sliders: visible("input[type=range]"),
    pickers: visible("#pick"),
    buttons: visible("button"),
  }};
  document.body.innerHTML = "<pre id=seen></pre>";
  document.querySelector("#seen").textContent = JSON.stringify(seen);
}});
</script>
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two volumes, one with a hostile name, with scores and labels."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "in").mkdir()
    for n, name in enumerate(("a&b<c", "plain")):
        tifffile.imwrite(folder / "in" / f"{name}.tif", sheets((14, 40, 36), n), photometric="minisblack")
    done = nx47dask.run([folder / "in"], folder / "out", workflow=write_workflow(folder), serial=True)
    path = done.path / "metrics" / "volumes.json"
    metrics = json.loads(path.read_text())
    terms = ("topo", "surface_dice", "voi", "voi_split", "voi_merge")
    shares = dict.fromkeys(("precision", "recall", "dice"), 0.5)
    places = {"count": 1, "places": [{"box": "3:6,10:14,20:25", "voxels": 12}]}
    for value, volume in zip((0.4, 0.09), metrics["volumes"].values(), strict=True):
        volume["score"] = {
            **dict.fromkeys(terms, value),
            "score": value,
            "counts": [[1, 2, 1]] * 3,
            "agreement": {"0": shares, "2": shares},
            "defects": {"holes": places, "bridges": places},
        }
    path.write_text(json.dumps(metrics))
    path = done.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["labels"] = {volume.id: _write_label(folder / "labels", volume.id) for volume in discover([folder / "in"])}
    manifest["arguments"] = ["run", "/a/long/path" * 12]
    path.write_text(json.dumps(manifest))
    scored = nx47dask.open_run(done.path)
    write_report(scored, baseline=scored)
    return scored


def _write_label(folder, volume):
    """Labels of one volume on the disk; what the manifest says of them."""
    folder.mkdir(exist_ok=True)
    labels = np.zeros((14, 40, 36), np.uint8)
    labels[:, 8:12], labels[:, :, 32:] = 1, 2
    path = folder / f"{volume}.tif"
    tifffile.imwrite(path, labels, photometric="minisblack")
    return {"path": str(path), "kind": "tiff", "fingerprint": discover([path])[0].fingerprint}


def browse(tmp_path, page, width):
    """What a page leaves in its element ``seen``, and what the browser logged."""
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    flags = (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom")
    address = (tmp_path / "page.html").as_uri()
    done = subprocess.run([BROWSER, *flags, address], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def probed(run, tmp_path_factory):
    """What the probe sees in a wide window, and what the browser logged."""
    report = (run.path / "report.html").read_text(encoding="utf-8")
    return browse(tmp_path_factory.mktemp("wide"), report.replace("</body>", PROBE + "</body>"), 1200)


def test_report_stands_alone_in_a_browser(probed):
    seen, console = probed
    assert console == []
    assert seen["requests"] == []
    assert seen["widths"][0] == seen["widths"][1], "the page is wider than the window"
    assert len(seen["pictures"]) > 2 * 2 * (14 + 36 + 36)
    assert all(wide and high and complete for wide, high, complete in seen["pictures"])
    assert len(seen["curves"]) == 3
    assert min(seen["curves"]) > 100


@pytest.mark.parametrize("width", [320, 400])
def test_report_fits_a_narrow_window(run, tmp_path, width):
    report = html.escape((run.path / "report.html").read_text(encoding="utf-8"), quote=True)
    seen, console = browse(tmp_path, AROUND.format(report=report, attributes=f'width="{width}"'), 1000)
    assert console == []
    needed, offered, window = seen["widths"]
    assert window == width
    assert needed == offered, "the page is wider than the window"
    assert len(seen["curves"]) == 3
    assert width - 60 < min(seen["curves"]) <= max(seen["curves"]) < width


def test_controls_change_what_is_shown(probed):
    seen, _ = probed
    start, slid, picked, linked = (seen[name] for name in ("start", "slid", "picked", "linked"))
    assert start["volumes"] == slid["volumes"] == linked["volumes"] == ["Volume a&b<c"]
    assert picked["volumes"] == ["Volume plain"]
    assert start["at"] == ["z = 7", "y = 20", "x = 18"]
    assert slid["at"] == ["z = 0", *start["at"][1:]]
    assert slid["spoken"].startswith("z = 0 mask on ")
    assert slid["cursor"] < start["cursor"]
    assert seen["overlays"] == ['url("#over-disagreement")', 'url("#over-prediction")', "hidden"]
    assert seen["sorted"] == [
        ["ascending", "a&b<c", "plain"],
        ["descending", "plain", "a&b<c"],
        ["descending", "a&b<c", "plain"],
        ["ascending", "plain", "a&b<c"],
    ]


def test_all_is_there_without_scripts(run, tmp_path):
    report = html.escape((run.path / "report.html").read_text(encoding="utf-8"), quote=True)
    attributes = 'sandbox="allow-same-origin" width="1000"'
    seen, _ = browse(tmp_path, AROUND.format(report=report, attributes=attributes), 1100)
    assert seen["volumes"] == 2
    assert seen["frames"] == [2 * (14 + 36 + 36)] * 2
    assert [seen[name] for name in ("sliders", "pickers", "buttons")] == [0, 0, 0]


@pytest.mark.skipif(None in (BROWSER, shutil.which("pdftotext")), reason="no Chromium or no pdftotext on the PATH")
def test_print_has_every_slice_of_every_volume(run, tmp_path):
    flags = (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={tmp_path / 'report.pdf'}")
    command_line = [BROWSER, *flags, (run.path / "report.html").as_uri()]
    subprocess.run(command_line, capture_output=True, timeout=120, check=True)
    printed = subprocess.run(["pdftotext", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True)
    assert {"Volume a&b<c", "Volume plain"} <= set(printed.stdout.splitlines())
    slices = re.findall(r"\bz ?= ?(\d+)", printed.stdout)
    assert [slices.count(str(z)) >= 2 for z in range(14)] == [True] * 14


def test_report_is_written_again_by_a_command(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("report.html", "report.md"):
        (run.path / name).unlink()
    assert command("report", run.path, "--baseline", run.path, "--gate", "score>=0,density<=0") == 0
    assert (run.path / "report.html").is_file()
    assert "score>=0 passed" in (run.path / "report.md").read_text()
    assert command("report", run.path, "--baseline", run.path, "--gate", "score>=0.5") == 4
    assert "0.5 failed" in (run.path / "report.md").read_text()
    capsys.readouterr()
    assert command("report", run.path, "--gate", "score>=0") == 2
    assert "give --baseline" in capsys.readouterr().err
    assert command("report", run.path, "--baseline", "v0") == 2
    assert command("report", tmp_path) == 2


def test_a_baseline_is_not_written_again(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frozen").mkdir()
    shutil.copyfile(run.path / "manifest.json", tmp_path / "frozen" / "manifest.json")
    (tmp_path / "frozen" / "baseline.json").write_text("{}")
    assert command("report", "frozen") == 2
    assert "a baseline is not written again" in capsys.readouterr().err


def test_recording_a_score_keeps_the_comparison(run, capsys):
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"baseline": {"path": str(run.path), "gates": "score>=0.5"}}))
    assert command("record-score", run.path, "--public", "0.387") == 0
    assert (
        "the baseline out (95 % interval 0 to 0 over 2 volumes). 1 of 1 gate failed: score>=0.5."
        in (run.path / "report.md").read_text()
    )
    assert "| public score | 0.3870 | 0.3870 | 0 |" in (run.path / "report.md").read_text()
    assert command("report", run.path) == 4
    assert "score>=0.5 failed" in capsys.readouterr().err
    assert command("report", run.path, "--gate", "density<=0") == 0

"""The report in a real browser: its pictures load, it logs no error, it fits the window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
import tifffile

import nx47dask
from tests.conftest import sheets

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
  const mask = document.querySelector(".overlay img + img");
  const shown = () => getComputedStyle(mask).visibility;
  const before = shown();
  document.querySelector("#show-mask").click();
  const seen = {
    pictures: [...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.complete]),
    visibility: [before, shown()],
    widths: [document.documentElement.scrollWidth, innerWidth],
    requests: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
    curves: [...document.querySelectorAll("svg .line")].map(l => l.getBoundingClientRect().width),
  };
  document.body.innerHTML = "<pre id=seen></pre>";
  document.querySelector("#seen").textContent = JSON.stringify(seen);
});
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    scan = folder / "in" / "a&b<c.tif"
    scan.parent.mkdir()
    tifffile.imwrite(scan, sheets((14, 40, 36)), photometric="minisblack")
    done = nx47dask.run([scan], folder / "out", workflow="v61.1", serial=True)
    return done.path / "report.html"


def look(report, tmp_path, width):
    """What the probe sees in a window of a width, and what the browser logged from the page."""
    copy = tmp_path / "probe.html"
    copy.write_text(report.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
@pytest.mark.parametrize("width", [600, 1200])
def test_report_works_in_a_browser(report, tmp_path, width):
    seen, console = look(report, tmp_path, width)
    assert console == []
    assert seen["requests"] == []
    assert seen["pictures"] == [[36, 40, True]] * 2 + [[36, 14, True]] * 2 + [[40, 14, True]] * 2
    assert seen["visibility"] == ["visible", "hidden"]
    assert seen["widths"][0] <= seen["widths"][1], "the page is wider than the window"
    assert len(seen["curves"]) == 2
    assert min(seen["curves"]) > 100

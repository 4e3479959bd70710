"""Both reports of a run, from the same facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nx47dask.io import write_text
from nx47dask.report.content import gather
from nx47dask.report.html import html_report
from nx47dask.report.markdown import markdown_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nx47dask.gates import GateResult
    from nx47dask.results import Run

__all__ = ["write_report"]


def write_report(run: Run, *, baseline: Run | None = None, gates: Sequence[GateResult] | None = None) -> None:
    """Write ``report.html`` and ``report.md`` into the folder of a finished run.

    Parameters
    ----------
    run : Run
        Its manifest, metrics, stores and labels are read. Without stores or labels the report goes on without
        pictures of them and says so.
    baseline : Run, optional
        What the run is measured against, where both have the same part of a volume.
    gates : sequence of GateResult, optional
        As :func:`nx47dask.report.content.checked_gates` gives them.

    Raises
    ------
    InputError
        External scores that were recorded are damaged.
    BlockError
        A label cannot be read.
    StorageError
        A report cannot be written.

    Notes
    -----
    The page needs no network and no other file and stays under 6 MB: pictures fill what the rest leaves of 5.7 MB.
    The same folders give the same bytes.
    """
    facts = gather(run, baseline, gates or ())
    write_text(run.path / "report.html", html_report(facts))
    write_text(run.path / "report.md", markdown_report(facts))

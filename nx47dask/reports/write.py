"""Write both reports of a run from the same facts."""

from __future__ import annotations

from collections.abc import Sequence

from nx47dask.errors import InputError
from nx47dask.files.atomic import write_text
from nx47dask.reports.content import gather
from nx47dask.reports.html import html_report
from nx47dask.reports.markdown import markdown_report
from nx47dask.runs.gates import GateResult
from nx47dask.runs.run import Run

__all__ = ["write_report"]


def write_report(
    run: Run, *, baseline: Run | None = None, gates: Sequence[GateResult] = (), notes: Sequence[str] = ()
) -> None:
    """Write ``report.html`` and ``report.md`` into the folder of a finished run.

    Parameters
    ----------
    run : Run
        Its manifest, metrics, masks, scans and labels are read. Without scans or labels the report goes on without
        pictures of them and says so.
    baseline : Run, optional
        The run is compared with it where both have the same part of a volume.
    gates : sequence of GateResult
        Verdicts to show.
    notes : sequence of str
        Hints for the reader beside the measures.

    Raises
    ------
    InputError
        There are neither finished volumes nor failures, or external scores that were recorded are damaged.
    StorageError
        A report cannot be written.

    Notes
    -----
    The page needs no network and no other file and stays under 6 MB: pictures fill what the rest leaves of 5.7 MB.
    The same folders give the same bytes.
    """
    if not run.volumes and not run.failures:
        raise InputError(
            f"{run.path}: no volume is finished, so there is nothing to report", hint="go on with --resume"
        )
    facts = gather(run, baseline, gates, notes)
    write_text(run.path / "report.html", html_report(facts))
    write_text(run.path / "report.md", markdown_report(facts))

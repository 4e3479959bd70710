"""Both reports of a run, from the same facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nx47dask.errors import GateError, InputError
from nx47dask.files.atomic import write_text
from nx47dask.report.content import gather
from nx47dask.report.html import html_report
from nx47dask.report.markdown import markdown_report
from nx47dask.runs.baselines import find_run
from nx47dask.runs.gates import check_runs

if TYPE_CHECKING:
    from nx47dask.runs.gates import GateResult
    from nx47dask.runs.run import Run

__all__ = ["write_report"]


def write_report(run: Run, *, baseline: Run | None = None, gates: str | None = None) -> list[GateResult]:
    """Write ``report.html`` and ``report.md`` into the folder of a finished run.

    Parameters
    ----------
    run : Run
        Its manifest, metrics, masks, scans and labels are read. Without scans or labels the report goes on without
        pictures of them and says so.
    baseline : Run, optional
        What the run is measured against, where both have the same part of a volume. By default the one that the
        manifest names, with the gates that it names, where it is still there; else the report says that it is gone.
    gates : str, optional
        What the run may lose against the baseline, such as ``score>=0,recall>=-0.01``.

    Returns
    -------
    list of GateResult
        Empty where there are no gates, and for a run that is not finished, which the report says.

    Raises
    ------
    InputError
        There are neither finished volumes nor failures, gates without a baseline or that cannot be checked, or
        external scores that were recorded are damaged.
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
    warnings = []
    recorded = run.manifest.get("baseline")
    if recorded and baseline is None:
        try:
            baseline, gates = find_run(recorded["path"]), gates or recorded["gates"]
        except (GateError, InputError) as error:
            warnings.append(f"Nothing is compared with the baseline {recorded['path']}: {error}.")
    if gates and baseline is None:
        raise InputError(
            f"gate {gates}: there is no baseline to limit a difference to", hint="give --baseline NAME|DIR too"
        )
    results = []
    if gates and baseline and run.unfinished:
        warnings.append(f"Gates are not checked, since the run is not finished: {gates}.")
    elif gates and baseline:
        results = check_runs(gates, baseline, run)
    facts = gather(run, baseline, results, warnings)
    write_text(run.path / "report.html", html_report(facts))
    write_text(run.path / "report.md", markdown_report(facts))
    return results

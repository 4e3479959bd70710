"""Write the report of a finished run again, compared with another baseline if wanted."""

from __future__ import annotations

from pathlib import Path

from nx47dask.errors import GateError, InputError
from nx47dask.reports.write import write_report
from nx47dask.runs.baselines import BASELINES, find_run, is_frozen
from nx47dask.runs.gates import GateResult, check_run, gates_first
from nx47dask.runs.run import Run, open_run

__all__ = ["report"]


def report(
    run: str | Path | Run,
    *,
    baseline: str | Path | Run | None = None,
    gates: str | None = None,
    baselines: str | Path = BASELINES,
) -> list[GateResult]:
    """Write ``report.html`` and ``report.md`` of a finished run again.

    Parameters
    ----------
    run : path or Run
        A run folder.
    baseline : str, path or Run, optional
        A frozen baseline by name or folder, or a run folder, to compare the run with. By default the baseline and the
        gates that the run was made with; if that baseline cannot be used, the report says so.
    gates : str, optional
        Limits on the loss against the baseline, such as ``score>=0,recall>=-0.01``.
    baselines : path
        Folder of the frozen baselines.

    Returns
    -------
    list of GateResult
        Verdict of each gate; empty without gates, and for an unfinished run, whose report says so.

    Raises
    ------
    InputError
        The run is a baseline or has no finished volume, gates cannot be checked or have no baseline, or the recorded
        external scores are damaged.
    StorageError
        A report cannot be written.
    GateError
        The baseline has changed since it was frozen, or a gate failed and the report could not be written.

    Examples
    --------
    Compare the report of a run with an earlier run, and limit the loss of density:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> before = nx47dask.run(["sample/train_images"], "before", workflow="v61.1", serial=True)
    >>> wider = ["detect.residual_band.sigma_base=2"]
    >>> now = nx47dask.run(["sample/train_images"], "now", workflow="v61.1", overrides=wider, serial=True)
    >>> for result in nx47dask.report(now, baseline=before, gates="density>=-0.01"):
    ...     print(result)
    density>=-0.01 passed: density 0.130575 -> 0.130046, difference -0.000528971
    >>> sorted(path.name for path in now.path.glob("report.*"))
    ['report.html', 'report.md']
    """
    candidate = open_run(run)
    if is_frozen(candidate):
        frozen = candidate.path
        raise InputError(f"{frozen}: a baseline is not written again", hint=f"give the run, with --baseline {frozen}")
    notes: list[str] = []
    against = None if baseline is None else find_run(baseline, Path(baselines))
    recorded = candidate.manifest.get("baseline")
    if recorded and against is None:
        try:
            against, gates = find_run(recorded["path"]), gates or recorded["gates"]
        except (GateError, InputError) as error:
            notes.append(f"Nothing is compared with the baseline {recorded['path']}: {error}.")
    if gates and against is None:
        raise InputError(
            f"gate {gates}: there is no baseline to limit a difference to", hint="give --baseline NAME|DIR too"
        )
    results, unchecked = check_run(gates, against, candidate)
    with gates_first(results):
        write_report(candidate, baseline=against, gates=results, notes=[*notes, *unchecked])
    return results

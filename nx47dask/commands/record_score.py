"""Record a score that was measured elsewhere, such as on a leaderboard."""

from __future__ import annotations

from pathlib import Path

from nx47dask.commands.report import report
from nx47dask.runs.baselines import BASELINES, find_run, is_frozen, write_external
from nx47dask.runs.run import Run

__all__ = ["record_score"]


def record_score(
    run: str | Path | Run,
    *,
    public: float | None = None,
    private: float | None = None,
    note: str | None = None,
    baselines: str | Path = BASELINES,
) -> list[Path]:
    """Record scores of a run or baseline, and write the report of a run again.

    Parameters
    ----------
    run : str, path or Run
        A run folder, or a frozen baseline by name or folder.
    public, private : float, optional
        Scores, 0 to 1; at least one of them.
    note : str, optional
    baselines : path
        Folder of the frozen baselines.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    InputError
        There is no such run or baseline, no score is given, or one is outside 0 to 1.
    StorageError
        A file cannot be written.
    """
    scored = find_run(run, Path(baselines))
    external = write_external(scored.path, public=public, private=private, note=note)
    if is_frozen(scored):
        return [external]
    report(scored)
    return [external, scored.path / "report.html"]

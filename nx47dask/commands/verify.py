"""Verify that a baseline or a run still is what was written."""

from __future__ import annotations

from pathlib import Path

from nx47dask.runs.baselines import BASELINES, find_folder, verify_folder

__all__ = ["verify"]


def verify(name_or_path: str | Path, baselines: str | Path = BASELINES) -> int:
    """Compute the checksums of a baseline, or of a run's artefacts, again.

    Parameters
    ----------
    name_or_path : str or path
        A baseline by name or folder, or a run folder.
    baselines : path
        Folder of the frozen baselines.

    Returns
    -------
    int
        Files that are as they were.

    Raises
    ------
    GateError
        Naming every file that is missing, extra or changed, with both checksums; or the list itself is damaged.
    InputError
        There is neither a baseline nor a finished run.
    """
    return verify_folder(find_folder(name_or_path, Path(baselines)))

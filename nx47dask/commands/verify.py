"""Verify that a baseline or a run has not changed since it was written."""

from __future__ import annotations

from pathlib import Path

from nx47dask.runs.baselines import BASELINES, find_folder, verify_folder

__all__ = ["verify"]


def verify(name_or_path: str | Path, baselines: str | Path = BASELINES) -> int:
    """Check the files of a baseline, or the artefacts of a run, against their recorded checksums.

    Parameters
    ----------
    name_or_path : str or path
        A baseline by name or folder, or a run folder.
    baselines : path
        Folder of the frozen baselines.

    Returns
    -------
    int
        Number of unchanged files.

    Raises
    ------
    GateError
        A file is missing, extra or changed, or the list of checksums is damaged; the message names every such file,
        with both checksums.
    InputError
        There is neither a baseline nor a finished run.

    Examples
    --------
    A changed file of a run is named:

    >>> from pathlib import Path
    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> run = nx47dask.run(["sample/train_images"], "first", workflow="v61.1", serial=True)
    >>> nx47dask.verify("first")
    4
    >>> _ = Path("first/metrics/slices.csv").write_text("edited")
    >>> nx47dask.verify("first")
    Traceback (most recent call last):
    nx47dask.errors.GateError: first: 1 difference from the run's manifest:
      metrics/slices.csv: changed, SHA-256 was ..., is ...
    """
    return verify_folder(find_folder(name_or_path, Path(baselines)))

"""The run folder: what is in it, making it, clearing it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from nx47dask.errors import InputError, Nx47Error, StorageError
from nx47dask.stages.job import VolumeJob
from nx47dask.stages.plan import RunPlan

__all__ = ["clear_folder", "folder_errors", "mask_path", "prepare_folder", "refuse_nesting"]

OWNED = (
    "ledger/plan.json",
    "masks",
    "store",
    "metrics",
    "submission.zip",
    "manifest.json",
    "report.html",
    "dask-report.html",
    "events.jsonl",
    "ledger",
)
"""What a run folder holds, in the order in which ``overwrite`` deletes it.

The plan goes first and the ledger last: what is left of an interrupted deletion cannot be resumed, and is known as a
run folder.
"""


def mask_path(folder: Path, job: VolumeJob) -> Path:
    """Where the mask of a volume goes."""
    return folder.absolute() / "masks" / f"{job.id}.tif"


def prepare_folder(planned: RunPlan, resume: bool) -> None:
    """Make the run folder; refuse one that is not ours before anything is put into it or deleted."""
    folder = planned.out
    if resume and not planned.record.is_file():
        raise InputError(f"{folder}: nothing to resume here; run without --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(child.name for child in folder.iterdir() if child.name != "run.lock")
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from error
    if others and "ledger" not in others:
        raise InputError(
            f"{folder}: no run folder, and not empty (it has {', '.join(others[:5])}); choose another --out"
        )


def clear_folder(folder: Path) -> None:
    """Delete a run, and nothing else that may lie in its folder."""
    for path in [*(folder / name for name in OWNED), *folder.glob(".*.tmp")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def refuse_nesting(inputs: Sequence[str | Path], out: Path) -> None:
    """Refuse a run folder inside an input, which it would become part of, and the reverse, which could delete it."""
    resolved = out.resolve()
    for given in inputs:
        source = Path(given).resolve()
        if resolved == source or resolved.is_relative_to(source) or source.is_relative_to(resolved):
            raise InputError(f"--out {out} and the input {given} lie inside one another; choose another --out")


@contextlib.contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Say which file or folder cannot be written or read."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Nx47Error) or error.errno is None:
            raise
        raise StorageError(f"{error.filename or folder}: cannot be used: {error.strerror or error}") from error

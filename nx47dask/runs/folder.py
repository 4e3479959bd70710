"""The run folder: what is in it, making it, clearing it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from nx47dask.engine import lock_run
from nx47dask.errors import InputError, Nx47Error, StorageError
from nx47dask.files.paths import is_remote, locate, remove_tree
from nx47dask.runs.identity import FolderPlan

__all__ = [
    "clear_folder",
    "folder_errors",
    "occupied_folder",
    "refuse_nesting",
]

OWNED = (
    "ledger/plan.json",
    "masks",
    "store",
    "metrics",
    "submission.zip",
    "manifest.json",
    "report.html",
    "external.json",
    "report.md",
    "dask-report.html",
    "events.jsonl",
    "ledger",
)
"""What a run folder holds, in the order in which ``overwrite`` deletes it.

The plan goes first and the ledger last: what is left of an interrupted deletion cannot be resumed, and is known as a
run folder.
"""


@contextlib.contextmanager
def occupied_folder(planned: FolderPlan, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold the run folder for a plan that it can take: a new one, that of ``resume``, or one to ``overwrite``.

    A folder that the body leaves without a plan is as it was before.

    Raises
    ------
    InputError
        The options exclude each other, the folder is not ours, holds another run or belongs to another client.
    StorageError
        Something in the folder cannot be used, now or in the body.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    prepare_folder(planned, resume)
    with folder_errors(planned.out), lock_run(planned.out):
        if not overwrite:
            planned.check(resume)
        try:
            yield
        finally:
            if not (is_remote(planned.out) or planned.record.exists()):
                _leave(planned.out)


def _leave(folder: Path) -> None:
    """Delete what a refused run has left of a folder that holds no other."""
    (folder / "run.lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it was there before, with the rest of another run
        folder.rmdir()


def prepare_folder(planned: FolderPlan, resume: bool) -> None:
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


def clear_folder(folder: Path, more: Sequence[str] = ()) -> None:
    """Delete a run, and ``more`` that a folder of this kind holds, and nothing else that may lie in it."""
    first, *others = OWNED
    for path in [
        *(folder / name for name in (first, *more, *others)),
        *folder.glob(".*.tmp"),
        *folder.glob("events.jsonl.*"),
    ]:
        remove_tree(path)


def refuse_nesting(inputs: Sequence[str | Path], out: Path) -> None:
    """Refuse a run folder inside an input, which it would become part of, and the reverse, which could delete it."""
    resolved = out.resolve()
    for given in inputs:
        source = locate(given).resolve()
        if is_remote(source) != is_remote(resolved):
            continue
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

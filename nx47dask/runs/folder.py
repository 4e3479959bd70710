"""Make, lock and clear run folders."""

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
"""Contents of a run folder, in the order in which ``overwrite`` deletes them.

The plan goes first and the ledger last: the rest of an interrupted deletion cannot be resumed, and is still recognised
as a run folder.
"""


@contextlib.contextmanager
def occupied_folder(planned: FolderPlan, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Lock the run folder for a plan: a new folder, that of the plan with ``resume``, or any run with ``overwrite``.

    If the body does not claim the folder for the plan, it is left as it was before.

    Raises
    ------
    InputError
        The options exclude each other, the folder is not a run folder, holds another run or is locked by another
        client.
    StorageError
        A file of the folder cannot be used, now or in the body.
    """
    if resume and overwrite:
        raise InputError(f"{planned.out}: resume and overwrite exclude each other", hint="give --resume or --overwrite")
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
    """Delete the files that a refused run left, and the folder if it is empty then."""
    (folder / "run.lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: it was there before
        folder.rmdir()


def prepare_folder(planned: FolderPlan, resume: bool) -> None:
    """Make the run folder; refuse a folder of something else, before anything in it is written or deleted."""
    folder = planned.out
    if resume and not planned.record.is_file():
        raise InputError(f"{folder}: nothing to resume here", hint="run without --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(child.name for child in folder.iterdir() if child.name != "run.lock")
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})", hint="choose another --out") from error
    if others and "ledger" not in others:
        raise InputError(
            f"{folder}: no run folder, and not empty (it has {', '.join(others[:5])})", hint="choose another --out"
        )


def clear_folder(folder: Path, more: Sequence[str] = ()) -> None:
    """Delete the files of a run, and ``more`` names that a folder of this kind holds; other files stay."""
    first, *others = OWNED
    for path in [
        *(folder / name for name in (first, *more, *others)),
        *folder.glob(".*.tmp"),
        *folder.glob("events.jsonl.*"),
    ]:
        remove_tree(path)


def refuse_nesting(inputs: Sequence[str | Path], out: Path) -> None:
    """Refuse a run folder inside an input, and an input inside the run folder: the run could read or delete its own."""
    resolved = out.resolve()
    for given in inputs:
        source = locate(given).resolve()
        if is_remote(source) != is_remote(resolved):
            continue
        if resolved == source or resolved.is_relative_to(source) or source.is_relative_to(resolved):
            raise InputError(
                f"{out}: the run folder and the input {given} lie inside one another", hint="choose another --out"
            )


@contextlib.contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file or folder."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Nx47Error) or error.errno is None:
            raise
        raise StorageError(
            f"{error.filename or folder}: cannot be used: {error.strerror or error}",
            hint="mend that, then go on with --resume",
        ) from error

"""Freeze a run as a baseline: a copy with the SHA-256 of every file, never written again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from nx47dask.engine.lock import lock_run
from nx47dask.errors import InputError, RunLockedError
from nx47dask.files.atomic import replace_file, sha256_file, storage_error, write_text
from nx47dask.runs.baselines import (
    BASELINE_FILE,
    BASELINES,
    EXTERNAL_FILE,
    SCHEMA,
    checksum_problems,
    content_digest,
    is_frozen,
    read_external,
    recorded_checksums,
    visible_files,
)
from nx47dask.runs.run import Run, open_run

__all__ = ["freeze"]

SUBMISSION = "submission.zip"
READ_ONLY = 0o444


def freeze(run: str | Path | Run, name: str, baselines: str | Path = BASELINES) -> Path:
    """Copy a finished run into a baseline that is never written again.

    The folder gets its name when all of it is on the disk. An interrupted freeze leaves a hidden folder
    (``.<name>.*.tmp``), which the next freeze of that name deletes.

    Parameters
    ----------
    run : path or Run
        A run folder. Its masks, metrics, manifest and external scores are copied, its stores and the zip are not.
    name : str
        Letters, digits, ``.``, ``_`` and ``-``; the first is a letter or a digit.
    baselines : path
        Folder of all baselines.

    Returns
    -------
    Path
        The baseline's folder.

    Raises
    ------
    InputError
        The name cannot be used or is taken; the run is a baseline, has no masks, or differs from its manifest.
    StorageError
        The baseline cannot be written.

    Examples
    --------
    Freeze a run, to compare later runs with it by name:

    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> run = nx47dask.run(["sample/train_images"], "first", workflow="v61.1", serial=True)
    >>> print(nx47dask.freeze(run, "plain"))
    baselines/plain
    >>> nx47dask.compare("plain", run, serial=True)["masks"]["identical_volumes"]
    1
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(
            f"name {name!r}: letters, digits, '.', '_' and '-' only, beginning with a letter or digit",
            hint="choose another --name",
        )
    run, baselines = open_run(run), Path(baselines)
    artefacts = _checked_artefacts(run)
    with _locked(baselines):
        folder = baselines / name
        if folder.exists():
            raise InputError(
                f"{folder}: exists already, and a baseline is never overwritten", hint="choose another --name"
            )
        _clear_leftovers(folder)
        try:
            with replace_file(folder) as temporary:
                _fill(temporary, run, name, artefacts)
        finally:
            _clear_leftovers(folder)
    return folder


@contextmanager
def _locked(baselines: Path) -> Iterator[None]:
    """Allow a single freeze at a time, so that no client deletes the work of another as leftovers."""
    try:
        baselines.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(baselines, error) from error
    with ExitStack() as held:
        try:
            held.enter_context(lock_run(baselines))
        except RunLockedError as error:
            raise RunLockedError(f"{baselines}: another freeze is under way here", hint="wait for it to end") from error
        except OSError as error:
            raise InputError(
                f"{baselines}: cannot be written ({error.strerror})", hint="choose other --baselines"
            ) from error
        yield


def _clear_leftovers(folder: Path) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.????????.tmp"):
        shutil.rmtree(leftover)


def _fill(folder: Path, run: Run, name: str, artefacts: Mapping[str, str]) -> None:
    """Write all files of a baseline into a folder."""
    copied = {file: sha256 for file, sha256 in artefacts.items() if file != SUBMISSION}
    for file in ("manifest.json", *copied):
        _copy(run.path / file, folder / file, copied.get(file))
    manifest = run.manifest
    steps = {key: value for key, value in manifest["workflow"].items() if key != "name"}
    workflow = {"description": f"{manifest['workflow']['name']}, every parameter as in baseline {name}", **steps}
    write_text(folder / "workflow.yaml", yaml.safe_dump(workflow, sort_keys=False, width=120))
    record = {
        "schema": SCHEMA,
        "name": name,
        "nx47dask": manifest["nx47dask"],
        "plan_sha256": manifest["plan_sha256"],
        "submission_sha256": artefacts.get(SUBMISSION),
        "artefacts_sha256": {file: sha256_file(folder / file) for file in visible_files(folder)},
    }
    record["content_sha256"] = content_digest(record)
    write_text(folder / BASELINE_FILE, json.dumps(record, indent=1) + "\n")
    for file in visible_files(folder):
        (folder / file).chmod(READ_ONLY)
    if external := read_external(run.path):
        write_text(folder / EXTERNAL_FILE, json.dumps(external, indent=1) + "\n")


def _copy(source: Path, target: Path, sha256: str | None) -> None:
    with replace_file(target, needed_bytes=source.stat().st_size) as temporary:
        with source.open("rb") as original, temporary.open("wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
        if sha256 not in (None, sha256_file(temporary)):
            raise InputError(
                f"{source}: changed while it was copied", hint="wait until the run has ended, then freeze again"
            )


def _checked_artefacts(run: Run) -> dict[str, str]:
    """Return the checksums of the artefacts of a run by name; refuse a run that cannot be frozen."""
    if is_frozen(run):
        raise InputError(f"{run.path}: is a baseline already", hint="freeze the run that it was made of")
    artefacts = recorded_checksums(run)
    run.require_finished("freeze")
    absent = [volume for volume in run.volumes if f"masks/{volume}.tif" not in artefacts]
    if absent:
        raise InputError(
            f"{run.path}: the run has no masks of {len(absent)} of {len(run.volumes)} volumes "
            f"({', '.join(absent[:5])}); a baseline needs them",
            hint="run again and keep the masks",
        )
    problems = checksum_problems(run.path, artefacts, "masks")
    if problems:
        raise InputError(
            f"{run.path}: is not what its manifest says, so it cannot be frozen:"
            + "".join(f"\n  {problem}" for problem in problems),
            hint="make it again with --overwrite",
        )
    return artefacts

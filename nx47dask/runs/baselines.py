"""Frozen baselines: a run copied with the SHA-256 of every file, found by name, checked again at any time.

``baselines/<name>/`` holds ``masks/``, ``metrics/``, ``manifest.json``, ``workflow.yaml`` and ``baseline.json``, which
lists the checksums and carries a digest of its own content. All of it is written once. ``external.json``, the scores
that somebody else measured, is the one file that may come later.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, cast

import yaml

from nx47dask.engine.lock import lock_run
from nx47dask.errors import GateError, InputError, RunLockedError
from nx47dask.files.atomic import replace_file, sha256_file, storage_error, write_text
from nx47dask.files.documents import read_json
from nx47dask.files.paths import file_sizes, locate
from nx47dask.runs.run import Run, open_run

__all__ = [
    "BASELINES",
    "ExternalScores",
    "check_masks",
    "find_folder",
    "find_run",
    "freeze",
    "is_frozen",
    "read_external",
    "record_score",
    "verify",
]

BASELINES = Path("baselines")
"""Where baselines are by default: under the current directory."""
BASELINE_FILE = "baseline.json"
EXTERNAL_FILE = "external.json"
SUBMISSION = "submission.zip"
SCHEMA = 1
READ_ONLY = 0o444


class ExternalScores(TypedDict, total=False):
    """``external.json``: the public and the private score, and a note; those that are known."""

    public: float
    private: float
    note: str


def find_folder(name_or_path: str | Path, baselines: Path = BASELINES) -> Path:
    """Folder of a baseline, by name or path, or of a finished run.

    A name that both a baseline and a run folder here have is the baseline; ``./NAME`` is the folder.

    Raises
    ------
    InputError
        There is none; the message lists the known baselines.
    """
    names = _names(baselines)
    if str(name_or_path) in names:
        return baselines / name_or_path
    folder = locate(name_or_path)
    if any((folder / file).is_file() for file in (BASELINE_FILE, "manifest.json")):
        return folder
    if folder.is_dir():
        raise InputError(f"{folder}: no finished run and no baseline (manifest.json is missing); end the run first")
    known = f"baselines in {baselines}: {', '.join(names)}" if names else f"there is no baseline in {baselines}"
    raise InputError(f"{name_or_path}: no such run folder, and no baseline of that name; {known}")


def find_run(name_or_path: str | Path, baselines: Path = BASELINES) -> Run:
    """Open a baseline, by name or path, or a finished run.

    Raises
    ------
    InputError
        There is none (the message lists the known baselines), or its manifest cannot be read.
    GateError
        A baseline is not what was frozen, or the masks of a run are not those that it wrote.
    """
    run = open_run(find_folder(name_or_path, baselines))
    if is_frozen(run):
        verify(run.path)
    else:
        check_masks(run)
    return run


def check_masks(run: Run) -> None:
    """Refuse a run whose masks are not those that it wrote.

    Raises
    ------
    GateError
        Naming every mask that is missing, extra or changed, with both checksums.
    """
    masks = {file: sha256 for file, sha256 in _artefacts(run).items() if file.startswith("masks/")}
    problems = _differences(run.path, masks, "masks")
    if problems:
        raise GateError(
            f"{run.path}: the masks are not those of the run; make them again with nx47dask run --overwrite:"
            + "".join(f"\n  {problem}" for problem in problems)
        )


def is_frozen(run: Run) -> bool:
    """Whether a run is a baseline."""
    return (run.path / BASELINE_FILE).is_file()


def freeze(run: Run, name: str, baselines: Path = BASELINES) -> Path:
    """Copy a finished run into a baseline that is never written again.

    The folder appears under its name when all of it is on the disk; what an interrupted freeze leaves is hidden
    (``.<name>.*.tmp``) and deleted by the next freeze of that name.

    Parameters
    ----------
    run : Run
        Its masks, metrics, manifest and external scores are copied, its stores and the zip are not.
    name : str
        Letters, digits, ``.``, ``_`` and ``-``; the first is a letter or a digit.
    baselines : Path
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
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(f"--name {name!r}: letters, digits, '.', '_' and '-' only, beginning with a letter or digit")
    artefacts = _checked_artefacts(run)
    with _locked(baselines):
        folder = baselines / name
        if folder.exists():
            raise InputError(f"{folder}: exists already, and a baseline is never overwritten; choose another --name")
        _clear_leftovers(folder)
        try:
            with replace_file(folder) as temporary:
                _fill(temporary, run, name, artefacts)
        finally:
            _clear_leftovers(folder)
    return folder


def verify(folder: Path) -> int:
    """Compute the checksums of a baseline, or of a run's artefacts, again.

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
    frozen = (folder / BASELINE_FILE).is_file()
    run = None if frozen else open_run(folder)
    try:
        expected, problems = (_artefacts(run), []) if run else _frozen_checksums(folder)
    except InputError as error:
        raise GateError(str(error)) from error
    problems += _differences(folder, expected, "" if frozen else "masks")
    if problems:
        what = "what was frozen" if frozen else "the run's manifest"
        count = f"{len(problems)} difference" + ("" if len(problems) == 1 else "s")
        raise GateError(f"{folder}: {count} from {what}:" + "".join(f"\n  {one}" for one in problems))
    return len(expected)


def read_external(folder: Path) -> ExternalScores:
    """Read the scores that were recorded for a run or baseline.

    Raises
    ------
    InputError
        ``external.json`` is damaged or holds a score outside 0 to 1.
    """
    path = folder / EXTERNAL_FILE
    if not path.is_file():
        return {}
    external = read_json(path)
    unknown = external.keys() - {"public", "private", "note"}
    if unknown:
        raise InputError(f"{path}: unknown key {min(unknown)!r}; allowed: public, private, note")
    for key in ("public", "private"):
        if key in external:
            _check_score(f"{path}: {key}", external[key])
    return cast("ExternalScores", external)


def record_score(
    folder: Path, *, public: float | None = None, private: float | None = None, note: str | None = None
) -> Path:
    """Record what somebody else measured, such as a leaderboard, in ``external.json`` of a run or baseline.

    What was recorded before and is not given now stays.

    Parameters
    ----------
    folder : Path
        A run or a baseline.
    public, private : float, optional
        Scores, 0 to 1; at least one of them.
    note : str, optional

    Raises
    ------
    InputError
        No score is given, or one is outside 0 to 1.
    StorageError
        The file cannot be written.
    """
    scores = {key: value for key, value in (("public", public), ("private", private)) if value is not None}
    if not scores:
        raise InputError("record-score: no score; give --public or --private")
    for key, value in scores.items():
        _check_score(f"--{key}", value)
    given = {**read_external(folder), **scores, **({} if note is None else {"note": note})}
    ordered = {key: given[key] for key in ("public", "private", "note") if key in given}
    write_text(folder / EXTERNAL_FILE, json.dumps(ordered, indent=1) + "\n")
    return folder / EXTERNAL_FILE


def _names(baselines: Path) -> list[str]:
    return sorted(path.parent.name for path in baselines.glob(f"[!.]*/{BASELINE_FILE}"))


@contextmanager
def _locked(baselines: Path) -> Iterator[None]:
    """One freeze at a time, so that the leftovers of a name are never another client's work."""
    try:
        baselines.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(baselines, error) from error
    with ExitStack() as held:
        try:
            held.enter_context(lock_run(baselines))
        except RunLockedError as error:
            raise RunLockedError(f"{baselines}: another freeze is under way here; wait for it to end") from error
        except OSError as error:
            raise InputError(
                f"--baselines {baselines}: cannot be written ({error.strerror}); choose another"
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
        "artefacts_sha256": {file: sha256_file(folder / file) for file in _files(folder)},
    }
    write_text(folder / BASELINE_FILE, json.dumps({**record, "content_sha256": _digest(record)}, indent=1) + "\n")
    for file in _files(folder):
        (folder / file).chmod(READ_ONLY)
    if external := read_external(run.path):
        write_text(folder / EXTERNAL_FILE, json.dumps(external, indent=1) + "\n")


def _copy(source: Path, target: Path, sha256: str | None) -> None:
    with replace_file(target, needed_bytes=source.stat().st_size) as temporary:
        with source.open("rb") as original, temporary.open("wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
        if sha256 not in (None, sha256_file(temporary)):
            raise InputError(f"{source}: changed while it was copied; wait until the run has ended, then freeze again")


def _checked_artefacts(run: Run) -> dict[str, str]:
    """Artefacts of a run that can be frozen, by name."""
    if is_frozen(run):
        raise InputError(f"{run.path}: is a baseline already; freeze the run that it was made of")
    artefacts = _artefacts(run)
    run.require_finished("freeze")
    absent = [volume for volume in run.volumes if f"masks/{volume}.tif" not in artefacts]
    if absent:
        raise InputError(
            f"{run.path}: the run has no masks of {len(absent)} of {len(run.volumes)} volumes "
            f"({', '.join(absent[:5])}); a baseline needs them: run again and keep the masks"
        )
    problems = _differences(run.path, artefacts, "masks")
    if problems:
        raise InputError(
            f"{run.path}: is not what its manifest says, so it cannot be frozen; make it again with --overwrite:"
            + "".join(f"\n  {problem}" for problem in problems)
        )
    return artefacts


def _artefacts(run: Run) -> dict[str, str]:
    """SHA-256 of a run's artefacts by relative path, from its manifest."""
    manifest = read_json(run.path / "manifest.json")
    missing = {"artefacts_sha256", "inputs", "plan_sha256", "workflow"} - manifest.keys()
    if missing:
        raise InputError(f"{run.path / 'manifest.json'}: not the manifest of a run ({min(missing)} is missing)")
    return _inside(run.path / "manifest.json", manifest["artefacts_sha256"])


def _frozen_checksums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """What ``baseline.json`` lists, and what is wrong with the file itself and with ``external.json``."""
    record = read_json(folder / BASELINE_FILE)
    if record.get("schema") != SCHEMA:
        raise InputError(
            f"{folder / BASELINE_FILE}: schema {record.get('schema')!r}, known is {SCHEMA}; use the version of "
            "nx47dask that froze it"
        )
    problems = []
    recorded, digest = record.pop("content_sha256", None), _digest(record)
    if recorded != digest:
        problems.append(f"{BASELINE_FILE}: changed, SHA-256 of its content was {recorded}, is {digest}")
    try:
        read_external(folder)
    except InputError as error:
        problems.append(str(error).removeprefix(f"{folder}/"))
    return _inside(folder / BASELINE_FILE, record.get("artefacts_sha256")), problems


def _differences(folder: Path, expected: Mapping[str, str], where: str) -> list[str]:
    """Files that are missing or changed, and those under ``where`` that are extra."""
    allowed = {*expected, BASELINE_FILE, EXTERNAL_FILE}
    there = {f"{where}/{file}" if where else file for file in _files(folder / where)}
    problems = [f"{file}: extra, it is not in the list of checksums" for file in sorted(there - allowed)]
    for file, sha256 in expected.items():
        try:
            found = sha256_file(folder / file)
        except FileNotFoundError:
            problems.append(f"{file}: missing, SHA-256 was {sha256}")
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror}), SHA-256 was {sha256}")
        else:
            if found != sha256:
                problems.append(f"{file}: changed, SHA-256 was {sha256}, is {found}")
    return problems


def _files(folder: Path) -> list[str]:
    """Files below a folder, sorted; hidden ones are nobody's results."""
    return sorted(name for name in file_sizes(folder) if not any(part.startswith(".") for part in name.split("/")))


def _inside(source: Path, checksums: Any) -> dict[str, str]:
    """Checksums by relative path, none of which leads out of the folder."""
    if not isinstance(checksums, dict) or not all(isinstance(value, str) for value in checksums.values()):
        raise InputError(f"{source}: artefacts_sha256 holds no checksums by file name")
    for name in checksums:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{source}: artefacts_sha256 names {name!r}, which is outside the folder")
    return checksums


def _check_score(where: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{where} {value!r}: a score is a number from 0 to 1")


def _digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object that does not depend on how it is written."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

"""Find and check frozen baselines: copies of runs with the SHA-256 of every file.

``baselines/<name>/`` holds ``masks/``, ``metrics/``, ``manifest.json``, ``workflow.yaml`` and ``baseline.json``, which
lists the checksums and has a digest of its own content. These files are written once. Only ``external.json``, with
scores that somebody else measured, may come later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, cast

from nx47dask.errors import GateError, InputError
from nx47dask.files.atomic import sha256_file, write_text
from nx47dask.files.documents import read_json
from nx47dask.files.paths import file_sizes, locate
from nx47dask.runs.run import Run, open_run

__all__ = [
    "BASELINES",
    "BASELINE_FILE",
    "EXTERNAL_FILE",
    "SCHEMA",
    "ExternalScores",
    "check_masks",
    "checksum_problems",
    "content_digest",
    "find_folder",
    "find_run",
    "is_frozen",
    "read_external",
    "recorded_checksums",
    "verify_folder",
    "visible_files",
    "write_external",
]

BASELINES = Path("baselines")
"""Default folder of all baselines, in the current directory."""
BASELINE_FILE = "baseline.json"
EXTERNAL_FILE = "external.json"
SCHEMA = 1


class ExternalScores(TypedDict, total=False):
    """``external.json``: the public and the private score, and a note; those that are known."""

    public: float
    private: float
    note: str


def find_folder(name_or_path: str | Path, baselines: Path = BASELINES) -> Path:
    """Find the folder of a baseline, by name or path, or of a finished run.

    If a baseline and a run folder here have the same name, the name means the baseline and ``./NAME`` the folder.

    Raises
    ------
    InputError
        There is no such folder; the message lists the known baselines.
    """
    names = _names(baselines)
    if str(name_or_path) in names:
        return baselines / name_or_path
    folder = locate(name_or_path)
    if any((folder / file).is_file() for file in (BASELINE_FILE, "manifest.json")):
        return folder
    if folder.is_dir():
        raise InputError(
            f"{folder}: no finished run and no baseline (manifest.json is missing)", hint="end the run first"
        )
    known = f"baselines in {baselines}: {', '.join(names)}" if names else f"there is no baseline in {baselines}"
    raise InputError(f"{name_or_path}: no such run folder, and no baseline of that name; {known}")


def find_run(name_or_path: str | Path | Run, baselines: Path = BASELINES) -> Run:
    """Open a baseline, by name or path, or a finished run; a run that is open already is returned as it is.

    Raises
    ------
    InputError
        There is no such run (the message lists the known baselines), or its manifest cannot be read.
    GateError
        A baseline has changed since it was frozen, or the masks of a run since they were written.
    """
    if isinstance(name_or_path, Run):
        return name_or_path
    run = open_run(find_folder(name_or_path, baselines))
    if is_frozen(run):
        verify_folder(run.path)
    else:
        check_masks(run)
    return run


def check_masks(run: Run) -> None:
    """Refuse a run whose masks have changed since they were written.

    Raises
    ------
    GateError
        The message names every mask that is missing, extra or changed, with both checksums.
    """
    masks = {file: sha256 for file, sha256 in recorded_checksums(run).items() if file.startswith("masks/")}
    problems = checksum_problems(run.path, masks, "masks")
    if problems:
        raise GateError(
            f"{run.path}: the masks are not those of the run:" + "".join(f"\n  {problem}" for problem in problems),
            hint="make them again with nx47dask run --overwrite",
        )


def is_frozen(run: Run) -> bool:
    """Return True if a run is a baseline."""
    return (run.path / BASELINE_FILE).is_file()


def verify_folder(folder: Path) -> int:
    """Check the files of a folder against their recorded checksums and return their number.

    Raises
    ------
    GateError
        It names every file that is missing, extra or changed, with both checksums.
    InputError
        There is neither a baseline nor a finished run.
    """
    frozen = (folder / BASELINE_FILE).is_file()
    run = None if frozen else open_run(folder)
    try:
        expected, problems = (recorded_checksums(run), []) if run else _frozen_checksums(folder)
    except InputError as error:
        raise GateError(error.message, hint=error.hint) from error
    problems += checksum_problems(folder, expected, "" if frozen else "masks")
    if problems:
        what = "what was frozen" if frozen else "the run's manifest"
        count = f"{len(problems)} difference" + ("" if len(problems) == 1 else "s")
        raise GateError(f"{folder}: {count} from {what}:" + "".join(f"\n  {problem}" for problem in problems))
    return len(expected)


def read_external(folder: Path) -> ExternalScores:
    """Read the scores that were recorded for a run or baseline: those of ``public``, ``private``, ``note`` that exist.

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


def write_external(
    folder: Path, *, public: float | None = None, private: float | None = None, note: str | None = None
) -> Path:
    """Record scores that were measured elsewhere, such as on a leaderboard, in ``external.json`` of a run or baseline.

    Recorded values stay, unless new ones are given.

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
        raise InputError(f"{folder}: no score is given", hint="give --public or --private")
    for key, value in scores.items():
        _check_score(f"{key} score", value)
    given = {**read_external(folder), **scores, **({} if note is None else {"note": note})}
    ordered = {key: given[key] for key in ("public", "private", "note") if key in given}
    write_text(folder / EXTERNAL_FILE, json.dumps(ordered, indent=1) + "\n")
    return folder / EXTERNAL_FILE


def _names(baselines: Path) -> list[str]:
    return sorted(path.parent.name for path in baselines.glob(f"[!.]*/{BASELINE_FILE}"))


def recorded_checksums(run: Run) -> dict[str, str]:
    """Read the SHA-256 of a run's artefacts from its manifest, by relative path."""
    manifest = read_json(run.path / "manifest.json")
    missing = {"artefacts_sha256", "inputs", "plan_sha256", "workflow"} - manifest.keys()
    if missing:
        raise InputError(f"{run.path / 'manifest.json'}: not the manifest of a run ({min(missing)} is missing)")
    return _inside(run.path / "manifest.json", manifest["artefacts_sha256"])


def _frozen_checksums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Read the checksums of ``baseline.json``, and name what is wrong in that file and in ``external.json``."""
    record = read_json(folder / BASELINE_FILE)
    if record.get("schema") != SCHEMA:
        raise InputError(
            f"{folder / BASELINE_FILE}: schema {record.get('schema')!r}, known is {SCHEMA}",
            hint="use the version of nx47dask that froze it",
        )
    problems = []
    recorded, digest = record.pop("content_sha256", None), content_digest(record)
    if recorded != digest:
        problems.append(f"{BASELINE_FILE}: changed, SHA-256 of its content was {recorded}, is {digest}")
    try:
        read_external(folder)
    except InputError as error:
        problems.append(str(error).removeprefix(f"{folder}/"))
    return _inside(folder / BASELINE_FILE, record.get("artefacts_sha256")), problems


def checksum_problems(folder: Path, expected: Mapping[str, str], where: str) -> list[str]:
    """Name the files that are missing or changed, and those below ``where`` that are not in the list."""
    allowed = {*expected, BASELINE_FILE, EXTERNAL_FILE}
    there = {f"{where}/{file}" if where else file for file in visible_files(folder / where)}
    problems = [f"{file}: extra, it is not in the list of checksums" for file in sorted(there - allowed)]
    for file, sha256 in expected.items():
        try:
            now = sha256_file(folder / file)
        except FileNotFoundError:
            problems.append(f"{file}: missing, SHA-256 was {sha256}")
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror}), SHA-256 was {sha256}")
        else:
            if now != sha256:
                problems.append(f"{file}: changed, SHA-256 was {sha256}, is {now}")
    return problems


def visible_files(folder: Path) -> list[str]:
    """List the files below a folder, sorted, without hidden files, which are not results."""
    return sorted(name for name in file_sizes(folder) if not any(part.startswith(".") for part in name.split("/")))


def _inside(source: Path, checksums: Any) -> dict[str, str]:
    """Return checksums by relative path; refuse paths that lead out of the folder."""
    if not isinstance(checksums, dict) or not all(isinstance(value, str) for value in checksums.values()):
        raise InputError(f"{source}: artefacts_sha256 holds no checksums by file name")
    for name in checksums:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{source}: artefacts_sha256 names {name!r}, which is outside the folder")
    return checksums


def _check_score(where: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{where} {value!r}: a score is a number from 0 to 1")


def content_digest(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, whatever its layout and the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

"""Ledger of a run: one record for each finished task.

The client is the only writer. A record is appended after the worker has stored the result, so a recorded task need
not run again; a task whose result was stored but not recorded simply runs again. A record names the files that its
task wrote, with their sizes. If a file is missing or has another size (deleted, or lost in a power cut), the record
does not count.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import NotRequired, TypedDict

from nx47dask.engine.lines import LineLog, read_lines
from nx47dask.errors import InputError, StorageError
from nx47dask.files.paths import file_sizes, is_remote, size_of

__all__ = ["Ledger", "Record"]

Key = tuple[str, int]


class Record(TypedDict):
    """A finished task: what the engine knows of it. What the task itself returned stands beside it in the same line.

    Attributes
    ----------
    stage : str
    number : int
        Of the task within its stage.
    files : dict of str to int, optional
        Bytes of the files that the task left, by path relative to the run folder.
    last : bool, optional
        The task is the last of its volume: the files of the others are no longer needed.
    skipped : bool, optional
        The result was known, so nothing ran.
    seconds : float
        Time of the task itself; 0 where nothing ran.
    worker : str
        Host and process that ran it; empty where nothing ran.
    peak_rss_bytes : int
        Largest memory of that process so far; 0 where nothing ran.
    key : str, optional
        What the task reads beyond the plan of its run.
    """

    stage: str
    number: int
    files: NotRequired[dict[str, int]]
    last: NotRequired[bool]
    skipped: NotRequired[bool]
    seconds: float
    worker: str
    peak_rss_bytes: int
    key: NotRequired[str]


class Ledger:
    """Records of finished tasks, in a JSON-lines file for each volume.

    Parameters
    ----------
    folder : Path
        ``ledger/`` of a run folder; created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, LineLog] = {}

    def load(self, volume: str) -> dict[Key, Record]:
        """Return the records of a volume by (stage, number) whose files still exist in their sizes.

        A line that was being written when the client died does not count. Once a record with ``last`` counts, the files
        of the other records are no longer needed.

        Raises
        ------
        InputError
            Another line is damaged.
        """
        path = self._path(volume)
        try:
            lines: list[Record] = [json.loads(line) for line in read_lines(path)]
            records = {(record["stage"], record["number"]): record for record in lines}
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{path}: a record cannot be read ({type(error).__name__}: {error})",
                hint="delete this file and use --resume: the tasks of the volume run again",
            ) from error
        if any(record.get("last") and self._holds(record) for record in records.values()):
            return records
        return {key: record for key, record in records.items() if self._holds(record)}

    def _holds(self, record: Record) -> bool:
        """Return True if the files of a record exist in their sizes."""
        files = record.get("files", {})
        if self._stored is not None:
            return all(self._stored.get(name) == size for name, size in files.items())
        return all(size_of(self.folder.parent / name) == size for name, size in files.items())

    @cached_property
    def _stored(self) -> dict[str, int] | None:
        """Sizes of all files of the run in an object store, where asking for each would take a request."""
        return file_sizes(self.folder.parent) if is_remote(self.folder) else None

    def append(self, volume: str, record: Record) -> None:
        """Add the record of a finished task; in an object store it is kept until :meth:`flush`.

        Raises
        ------
        StorageError
            The disk is full or the folder cannot be written.
        """
        if volume not in self._open:
            try:
                self._open[volume] = LineLog(self._path(volume))
            except OSError as error:
                raise StorageError(
                    f"{self._path(volume)}: cannot record a finished task: {error.strerror}",
                    hint="mend that, then go on with --resume",
                ) from error
        self._open[volume].append(json.dumps(record, separators=(",", ":")))

    def flush(self) -> None:
        """Store the appended records durably; a local file is flushed after every line."""
        for log in self._open.values():
            log.flush()

    def close(self) -> None:
        """Flush everything to the disk and close every file, even if the disk is full."""
        opened, self._open = self._open, {}
        with ExitStack() as logs:
            for log in opened.values():
                logs.callback(log.close)

    def _path(self, volume: str) -> Path:
        return self.folder / f"{volume}.jsonl"

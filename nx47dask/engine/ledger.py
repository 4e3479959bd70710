"""The ledger of a run: one record per finished task, and the lock that keeps a second client out.

The client is the only writer. A record is appended after the worker has stored the result, so a recorded task need
not run again; one that was stored but not recorded simply runs again. A record names the files that its task left,
with their sizes; where one is not there as it was (deleted, or lost with the power), the record does not count.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from nx47dask.errors import InputError, RunLockedError, StorageError

__all__ = ["Ledger", "Record", "cut_torn_line", "lock_run"]

Record = dict[str, Any]
Key = tuple[str, int]


class Ledger:
    """Records of finished tasks, a JSON-lines file per volume.

    Parameters
    ----------
    folder : Path
        ``ledger/`` of a run folder; created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, TextIO] = {}

    def load(self, volume: str) -> dict[Key, Record]:
        """Records of a volume by (stage, number) whose files are there as they were.

        A line that was being written when the client died is cut off. Once the record that says ``last`` stands, the
        files of the others are no longer needed.

        Raises
        ------
        InputError
            Another line is damaged.
        """
        path = self._path(volume)
        if not path.exists():
            return {}
        cut_torn_line(path)
        try:
            records = [json.loads(line) for line in path.read_bytes().splitlines()]
            found = {(record["stage"], record["number"]): record for record in records}
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{path}: a record cannot be read ({type(error).__name__}: {error}); delete this file and "
                "use --resume: the tasks of the volume run again"
            ) from error
        if any(record.get("last") and self._holds(record) for record in found.values()):
            return found
        return {key: record for key, record in found.items() if self._holds(record)}

    def _holds(self, record: Record) -> bool:
        """Whether the files of a record are there in their size."""
        files = {self.folder.parent / name: size for name, size in record.get("files", {}).items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in files.items())

    def append(self, volume: str, record: Record) -> None:
        """Add the record of a finished task.

        Raises
        ------
        StorageError
            The disk is full or the folder cannot be written.
        """
        try:
            if volume not in self._open:
                self._open[volume] = self._path(volume).open("a", encoding="utf-8")
            stream = self._open[volume]
            stream.write(json.dumps(record, separators=(",", ":")) + "\n")
            stream.flush()
        except OSError as error:
            raise StorageError(f"{self._path(volume)}: cannot record a finished task: {error.strerror}") from error

    def flush(self) -> None:
        """Make what was appended last; a local file is after every line."""

    def close(self) -> None:
        """Flush everything to the disk; every file is closed, also when the disk takes no more."""
        opened, self._open = self._open, {}
        with ExitStack() as streams:
            for stream in opened.values():
                streams.enter_context(stream)
            for stream in opened.values():
                os.fsync(stream.fileno())

    def _path(self, volume: str) -> Path:
        return self.folder / f"{volume}.jsonl"


def cut_torn_line(path: Path) -> None:
    """Cut off a last line that was being written when its writer died."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the run folder for this client; the lock ends with the process, however it ends.

    Raises
    ------
    RunLockedError
        Another client holds it.
    """
    path = folder / "run.lock"
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            owner = stream.read().strip() or "another client"
            raise RunLockedError(
                f"{folder}: {owner} is working in this run folder; wait for it, or choose another --out"
            ) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        yield

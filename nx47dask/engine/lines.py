"""Files of lines that one writer appends to: the ledger and the events of a run.

A file here is appended to. In an object store nothing can be appended to, so there such a file is a series of
segments, ``events.jsonl``, ``events.jsonl.1``, ``events.jsonl.2``: only the last one changes, it is written again as a
whole (which is atomic, so no line is ever torn), and once it is long enough the next one begins.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nx47dask.errors import StorageError
from nx47dask.files.paths import RemotePath, as_remote

__all__ = ["LineLog", "log_files", "read_lines"]

SEGMENT_BYTES = 256 << 10
READERS = 8


class LineLog:
    """Append lines to a file.

    Parameters
    ----------
    path : Path
        Created when missing; a last line that was being written when its writer died is cut off.

    Raises
    ------
    StorageError
        In the methods as well: it cannot be written, or somebody else writes to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = b""
        if remote := as_remote(path):
            self._tail: _Tail | None = _Tail(remote)
        else:
            self._tail = None
            _cut_torn_line(path)
            self._stream = path.open("ab")

    def append(self, line: str) -> None:
        """Add a line; on an object store it is kept until :meth:`flush`."""
        self._pending += line.encode() + b"\n"
        if self._tail is None:
            self.flush()

    def flush(self) -> None:
        """Make the lines so far outlive this process."""
        if not self._pending:
            return
        try:
            if self._tail:
                self._tail.extend(self._pending)
            else:
                self._stream.write(self._pending)
                self._stream.flush()
        except OSError as error:
            raise StorageError(f"{self.path}: a line cannot be added: {error.strerror or error}") from error
        self._pending = b""

    def close(self) -> None:
        """Make the lines outlive the machine as well; nothing can be added any more."""
        if self._tail:
            self.flush()
            return
        with self._stream:
            os.fsync(self._stream.fileno())


class _Tail:
    """The segment that still grows: one of its own for every writer, so that nothing is read to begin."""

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        self.number = len(_segments(path))
        self._begin()

    def _begin(self) -> None:
        self.content = b""
        self.version: str | None = None

    def extend(self, lines: bytes) -> None:
        segment = self.path.with_name(f"{self.path.name}.{self.number}") if self.number else self.path
        # Only over what this client wrote: a second one, should it ever come past the lock, is noticed here.
        self.version = segment.put(self.content + lines, self.version)
        self.content += lines
        if len(self.content) >= SEGMENT_BYTES:
            self.number += 1
            self._begin()


def read_lines(path: Path) -> list[bytes]:
    """All whole lines of what :class:`LineLog` wrote, also while it is being written; none where nothing is.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with ThreadPoolExecutor(READERS) as readers:
        content = b"".join(readers.map(lambda segment: segment.read_bytes(), log_files(path)))
    return content[: content.rfind(b"\n") + 1].splitlines()


def log_files(path: Path) -> list[Path]:
    """The files that hold the lines of a log, in order."""
    if remote := as_remote(path):
        return [path.with_name(segment.name) for segment in _segments(remote)]
    return [path] if path.exists() else []


def _segments(path: RemotePath) -> list[RemotePath]:
    found = [item for item in path.parent.glob(f"{path.name}*") if _number(item, path) is not None]
    return sorted(found, key=lambda item: _number(item, path) or 0)


def _number(item: RemotePath, path: RemotePath) -> int | None:
    number = item.name.removeprefix(path.name).removeprefix(".")
    return int(number) if number.isdecimal() else 0 if item.name == path.name else None


def _cut_torn_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)

"""Files of lines that one writer appends to: the ledger and the events of a run.

On a file system lines are appended to a file. Nothing can be appended to an object, so in an object store the file is a
series of segments, ``events.jsonl``, ``events.jsonl.1``, ``events.jsonl.2``. Only the last segment changes. It is
written again as a whole (which is atomic, so that no line is ever torn) until it is long enough; then the next begins.
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
    """File of lines that this process appends to.

    Parameters
    ----------
    path : Path
        Created when missing. An incomplete last line, left by a writer that died, is cut off.

    Raises
    ------
    StorageError
        The methods raise it: the file cannot be written, or another process writes to it.
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
        """Write the lines so far, so that they survive the end of this process."""
        if not self._pending:
            return
        try:
            if self._tail:
                self._tail.extend(self._pending)
            else:
                self._stream.write(self._pending)
                self._stream.flush()
        except OSError as error:
            raise StorageError(
                f"{self.path}: a line cannot be added: {error.strerror or error}",
                hint="mend that, then go on with --resume",
            ) from error
        self._pending = b""

    def close(self) -> None:
        """Write the lines so that they also survive a power cut, and close the file."""
        if self._tail:
            self.flush()
            return
        with self._stream:
            os.fsync(self._stream.fileno())


class _Tail:
    """Last segment, which still grows. Every writer begins a new one, so that it need not read the one before."""

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        self.number = len(_segments(path))
        self._begin()

    def _begin(self) -> None:
        self.content = b""
        self.version: str | None = None

    def extend(self, lines: bytes) -> None:
        segment = self.path.with_name(f"{self.path.name}.{self.number}") if self.number else self.path
        # It replaces only what this client wrote: a second client that got past the lock is noticed here.
        self.version = segment.put(self.content + lines, self.version)
        self.content += lines
        if len(self.content) >= SEGMENT_BYTES:
            self.number += 1
            self._begin()


def read_lines(path: Path) -> list[bytes]:
    """Read all complete lines that :class:`LineLog` wrote, even while it writes; an empty list if there is no file.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with ThreadPoolExecutor(READERS) as readers:
        content = b"".join(readers.map(lambda segment: segment.read_bytes(), log_files(path)))
    return content[: content.rfind(b"\n") + 1].splitlines()


def log_files(path: Path) -> list[Path]:
    """List the files that hold the lines of a log, in order."""
    if remote := as_remote(path):
        return [path.with_name(segment.name) for segment in _segments(remote)]
    return [path] if path.exists() else []


def _segments(path: RemotePath) -> list[RemotePath]:
    segments = [item for item in path.parent.glob(f"{path.name}*") if _number(item, path) is not None]
    return sorted(segments, key=lambda item: _number(item, path) or 0)


def _number(item: RemotePath, path: RemotePath) -> int | None:
    number = item.name.removeprefix(path.name).removeprefix(".")
    return int(number) if number.isdecimal() else 0 if item.name == path.name else None


def _cut_torn_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)

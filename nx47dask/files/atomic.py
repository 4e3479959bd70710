"""Files that appear whole or not at all, and errors of storage that say how much room was left."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nx47dask.errors import Nx47Error, StorageError
from nx47dask.files.paths import RemotePath, as_remote, is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["free_bytes_at", "replace_file", "sha256_file", "storage_error", "write_bytes", "write_text"]


@contextmanager
def replace_file(path: Path, *, needed_bytes: int | None = None, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name; when the body ends well, the file appears as ``path``.

    Here the name is beside ``path`` and the file is renamed. For an object store it is in the folder for temporary
    files, and the file is uploaded as one object.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made when missing.
    needed_bytes : int, optional
        The largest size the file can have, for the message of a failure.
    durable : bool
        Force the file to the disk first, so that it outlives the machine as well as the process (6 ms on a virtual
        disk).

    Raises
    ------
    StorageError
        The folder or the file cannot be written. The temporary file is gone, ``path`` is as it was.
    """
    if remote := as_remote(path):
        with _uploaded(remote) as temporary:
            yield temporary
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _fsync(temporary)
        temporary.replace(path)
        if durable:
            _fsync(path.parent)
    except OSError as error:
        if isinstance(error, Nx47Error):
            raise
        free = free_bytes_at(path)  # before the temporary file gives its bytes back
        raise storage_error(path, error, needed_bytes=needed_bytes, free_bytes=free) from error
    finally:
        _unlink_quietly(temporary)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text (JSON, CSV, HTML) under its final name only when it is complete.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    data = text.encode()
    write_bytes(path, data)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write bytes under their final name only when they are complete; ``durable`` as in :func:`replace_file`.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    if is_remote(path):
        try:
            path.write_bytes(data)
        except OSError as error:
            raise storage_error(path, error) from error
        return
    with replace_file(path, needed_bytes=len(data), durable=durable) as temporary:
        temporary.write_bytes(data)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage_error(
    path: Path | RemotePath, cause: OSError, *, needed_bytes: int | None = None, free_bytes: int | None = None
) -> StorageError:
    """A StorageError that says what could not be stored where, why, and the room needed and left."""
    if isinstance(path, RemotePath):
        return StorageError(f"{path}: cannot be written ({cause.strerror or cause}); mend that, then resume")
    free = free_bytes_at(path) if free_bytes is None else free_bytes
    needed = "" if needed_bytes is None else f"at most {needed_bytes:,} bytes needed, "
    room = f"{needed}{free:,} bytes free" if free is not None else f"{needed}free bytes unknown"
    return StorageError(
        f"{path}: cannot be written ({cause.strerror or cause}); {room}; "
        "make room or choose another output folder, then resume"
    )


@contextmanager
def _uploaded(path: RemotePath) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="nx47dask-") as folder:
            temporary = Path(folder) / path.name
            yield temporary
            path.upload(temporary)
    except OSError as error:
        if isinstance(error, Nx47Error):
            raise
        raise storage_error(path, error) from error


def free_bytes_at(path: Path) -> int | None:
    """Room on the disk of a path that need not be there yet; None where that is not known."""
    for folder in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself went away or is read-only; the first error is the one to show

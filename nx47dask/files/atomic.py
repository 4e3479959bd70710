"""Files that appear complete or not at all, and storage errors that say how much space was left."""

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
    """Yield a temporary name; when the body ends without an error, the file appears as ``path``.

    For a local path, the temporary file is beside ``path`` and is renamed. For an object store, it is in the folder
    for temporary files and is uploaded as a single object.

    Parameters
    ----------
    path : Path
        The final name. A missing folder is created.
    needed_bytes : int, optional
        The largest size that the file can have, for the error message.
    durable : bool
        Force the file to the disk first, so that it survives a crash of the machine, not only of the process (6 ms on
        a virtual disk).

    Raises
    ------
    StorageError
        The folder or the file cannot be written. The temporary file is removed, ``path`` is unchanged.
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
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage_error(
    path: Path | RemotePath, cause: OSError, *, needed_bytes: int | None = None, free_bytes: int | None = None
) -> StorageError:
    """Return a StorageError with the path, the reason, and the bytes needed and free."""
    if isinstance(path, RemotePath):
        return StorageError(f"{path}: cannot be written ({cause.strerror or cause})", hint="fix that, then resume")
    free = free_bytes_at(path) if free_bytes is None else free_bytes
    needed = "" if needed_bytes is None else f"at most {needed_bytes:,} bytes needed, "
    room = f"{needed}{free:,} bytes free" if free is not None else f"{needed}free bytes unknown"
    return StorageError(
        f"{path}: cannot be written ({cause.strerror or cause}); {room}",
        hint="make room or choose another output folder, then resume",
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
    """Return the free bytes on the disk of a path, which need not exist yet; None where that is not known."""
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
        return  # the folder was removed or is read-only; the first error is the one to show

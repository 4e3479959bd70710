"""Paths of files: local ones, ``s3://bucket/key``, or files of a web server (``http://``, ``https://``).

``locate`` gives a :class:`pathlib.Path` or a :class:`RemotePath`, which has the methods of the former that this
project uses; both are annotated as ``Path``. universal_pathlib was tried and does not fit: its ``is_file`` is False
also when a server refuses to answer (an existing store would count as missing and be created again), a read costs two
requests, and its paths carry the options of their filesystem.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import IO, Any, cast

from nx47dask.errors import InputError
from nx47dask.files.remote import PROTOCOLS, NoSuchObjectError, file_errors, filesystem

__all__ = ["RemotePath", "as_remote", "file_sizes", "file_version", "is_remote", "locate", "remove_tree", "size_of"]

BLOCK_BYTES = 4 << 20
"""Smallest number of bytes to read from a large remote file at a time."""


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder of an object store, or a file of a web server; it pickles as its URL.

    It raises the errors of :class:`pathlib.Path` (FileNotFoundError, PermissionError, OSError), with the URL and the
    reason. Files appear only when they are complete; a folder exists as long as something is in it.

    Parameters
    ----------
    protocol : {"s3", "http", "https"}
    key : PurePosixPath
        Bucket or host, and the path in it.
    """

    protocol: str
    key: PurePosixPath

    def __str__(self) -> str:
        return f"{self.protocol}://{self.key}"

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return RemotePath(self.protocol, self.key / name)

    @property
    def fs(self) -> Any:
        """Filesystem of fsspec that holds the path."""
        return filesystem(self.protocol)

    @property
    def address(self) -> str:
        """Path in the form that fsspec takes."""
        return str(self.key) if self.protocol == "s3" else str(self)

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def stem(self) -> str:
        return self.key.stem

    @property
    def suffix(self) -> str:
        return self.key.suffix

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.protocol, self.key.parent)

    @property
    def parents(self) -> list[RemotePath]:
        return [RemotePath(self.protocol, key) for key in self.key.parents if key.parts]

    def with_name(self, name: str) -> RemotePath:
        return RemotePath(self.protocol, self.key.with_name(name))

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        return self.key.relative_to(other.key)

    def is_relative_to(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.protocol == other.protocol and self.key.is_relative_to(other.key)

    def absolute(self) -> RemotePath:
        return self

    def resolve(self) -> RemotePath:
        return self

    def as_posix(self) -> str:
        return str(self)

    def info(self) -> dict[str, Any] | None:
        """Ask the store for the properties of the file or folder; None where there is none."""
        try:
            with file_errors(str(self)):
                properties: dict[str, Any] = self.fs.info(self.address)
        except FileNotFoundError:
            return None
        return properties

    def exists(self) -> bool:
        return self.info() is not None

    def is_file(self) -> bool:
        info = self.info()
        return info is not None and info["type"] == "file"

    def is_dir(self) -> bool:
        info = self.info()
        return info is not None and info["type"] == "directory"

    def stat(self) -> SimpleNamespace:
        with file_errors(str(self)):
            return SimpleNamespace(st_size=self.fs.info(self.address)["size"])

    def open(self, mode: str = "r", *, encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """Open the file for reading; reads of nearby positions share a request."""
        if "r" not in mode:
            raise io.UnsupportedOperation(f"{self}: remote files are written whole, not opened for writing")
        with file_errors(str(self)):
            stream = self.fs.open(self.address, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
        return cast("IO[Any]", stream if "b" in mode else io.TextIOWrapper(stream, encoding, newline=newline))

    def read_bytes(self) -> bytes:
        with file_errors(str(self)):
            return bytes(self.fs.cat_file(self.address))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> int:
        with file_errors(str(self)):
            self.fs.pipe_file(self.address, data)
        return len(data)

    def put(self, data: bytes, replaces: str | None) -> str:
        """Write an object unless somebody else has changed it.

        Parameters
        ----------
        data : bytes
        replaces : str or None
            Version that the object must have now; None: there must be no object yet.

        Returns
        -------
        str
            The new version.

        Raises
        ------
        FileExistsError
            There is another version.
        """
        bucket, _, name = self.address.partition("/")
        condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        try:
            with file_errors(str(self)):
                return str(self.fs.call_s3("put_object", Bucket=bucket, Key=name, Body=data, **condition)["ETag"])
        except FileExistsError:
            info = self.info()
            # A put is sent again when its answer was lost; it then meets its own object.
            if info is None or self.read_bytes() != data:
                raise
            return str(info["ETag"])

    def upload(self, file: Path) -> None:
        """Write the contents of a local file."""
        with file_errors(str(self)):
            self.fs.put_file(str(file), self.address)

    def unlink(self, missing_ok: bool = False) -> None:
        with file_errors(str(self)):
            self.fs.rm_file(self.address)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Refuse a web server or a missing bucket; a remote folder need not be created."""
        if self.protocol != "s3":
            raise OSError(errno.EROFS, "a web server can be read only", str(self))
        with contextlib.suppress(NoSuchObjectError):
            self.stat()

    def iterdir(self) -> Iterator[RemotePath]:
        names: list[str] = []
        with contextlib.suppress(NoSuchObjectError), file_errors(str(self)):
            names = self.fs.ls(self.address, detail=False)
        paths = (PurePosixPath(name) for name in names)
        return iter([self / path.name for path in paths if path != self.key])

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield the files and folders directly in this folder whose name matches; ``**`` has no special meaning."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield the files anywhere below this folder whose name matches."""
        paths = (self / name for name in _remote_sizes(self))
        return (path for path in paths if fnmatchcase(path.name, pattern))


def locate(text: str | Path) -> Path:
    """Return the path of a local file or folder, ``s3://bucket/key``, ``http://host/path`` or ``https://host/path``.

    Raises
    ------
    InputError
        The protocol is not known; the URL has no bucket or host; or the URL has a user, password, query or fragment,
        which would show in logs and manifests.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", str(text), re.DOTALL)  # pathlib.Path makes one slash of two
    if match is None:
        return Path(text) if isinstance(text, str) else text
    protocol, rest = match[1].lower(), match[2].rstrip("/")
    if protocol not in PROTOCOLS:
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise InputError(f"{protocol}://...: unknown kind of place; known are folders here, {known}")
    host, _, key = rest.partition("/")
    shown = f"{protocol}://{host.rpartition('@')[2]}/{re.split('[?#]', key)[0]}"
    if "@" in host or (protocol != "s3" and re.search("[?#]", rest)):
        raise InputError(
            f"{shown}: a URL with a user, password, query or fragment would put secrets into logs and manifests",
            hint="leave that out, and give credentials by the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...)",
        )
    if not host:
        raise InputError(f"{text}: no bucket or host; expected {protocol}://NAME/path")
    return cast("Path", RemotePath(protocol, PurePosixPath(rest)))


def as_remote(path: object) -> RemotePath | None:
    """Return the path if it is remote, else None."""
    return path if isinstance(path, RemotePath) else None


def is_remote(path: object) -> bool:
    """Return True for a path in an object store or on a web server."""
    return isinstance(path, RemotePath)


def size_of(path: Path) -> int | None:
    """Return the size of a file in bytes, None where there is no file.

    Raises
    ------
    OSError
        The store or disk does not answer; the file may exist.
    """
    try:
        if remote := as_remote(path):
            info = remote.info()
            return int(info["size"]) if info and info["type"] == "file" and info["size"] is not None else None
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def file_version(path: Path) -> str:
    """Return a text that changes with a file: its size, and its modification time (local) or ETag (remote).

    Raises
    ------
    OSError
        The file does not exist or cannot be inspected.
    """
    remote = as_remote(path)
    if remote is None:
        status = path.stat()
        return f"{status.st_size}\0{status.st_mtime_ns}"
    info = remote.info()
    if info is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path))
    return f"{info['size']}\0{info.get('ETag') or info.get('Last-Modified') or info.get('LastModified')}"


def file_sizes(folder: Path) -> dict[str, int]:
    """Measure all files below a folder, in bytes, by their path in it; an object store needs a single listing.

    Raises
    ------
    OSError
        The folder cannot be listed. A missing folder has no files and is no error.
    """
    if remote := as_remote(folder):
        return _remote_sizes(remote)
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def _remote_sizes(folder: RemotePath) -> dict[str, int]:
    with file_errors(str(folder)):
        entries = folder.fs.find(folder.address, detail=True)
    keys = {PurePosixPath(name): entry["size"] for name, entry in entries.items()}
    return {key.relative_to(folder.key).as_posix(): size for key, size in keys.items() if key != folder.key}


def remove_tree(path: Path) -> None:
    """Delete a file, or a folder with all its contents, if it exists.

    Raises
    ------
    OSError
        Something in it cannot be deleted.
    """
    if remote := as_remote(path):
        with contextlib.suppress(FileNotFoundError), file_errors(str(remote)):
            remote.fs.rm(remote.address, recursive=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

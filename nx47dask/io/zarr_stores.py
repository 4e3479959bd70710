"""Zarr over fsspec: only a missing object counts as a missing chunk; every other failure is an error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore

from nx47dask.files.paths import as_remote, locate
from nx47dask.files.remote import NoSuchObjectError, client_errors, file_error, filesystem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from nx47dask.files.paths import RemotePath

__all__ = ["zarr_store"]


def zarr_store(path: Path, *, read_only: bool = False) -> str | FsspecStore:
    """Return what zarr takes for the folder of an array or a group: a local path, or a store over fsspec."""
    remote = as_remote(path)
    return str(path) if remote is None else _RemoteStore(remote, read_only)


class _FromZarr:
    """Filesystem for zarr's event loop that works in fsspec's loop, which closes its connections at the end."""

    async_impl = asynchronous = True

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.fs, name)

        async def called(*arguments: Any, **options: Any) -> Any:
            done = asyncio.run_coroutine_threadsafe(method(*arguments, **options), self.fs.loop)
            return await asyncio.wrap_future(done)

        return called


class _RemoteStore(FsspecStore):
    """Zarr store for a folder of an object store or a web server; it pickles as its URL."""

    def __init__(self, folder: RemotePath, read_only: bool) -> None:
        fs: Any = _FromZarr(filesystem(folder.protocol))
        super().__init__(fs, read_only, folder.address, allowed_exceptions=())
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (str(self.folder), self.read_only)

    def with_read_only(self, read_only: bool = False) -> _RemoteStore:
        return _RemoteStore(self.folder, read_only)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a value or a part of it; None only if the server says that there is no such object."""
        try:
            value = await super().get(key, prototype, byte_range)
        except client_errors() as error:
            failure = file_error(str(self.folder / key), error)
            if isinstance(failure, NoSuchObjectError):
                return None
            raise failure from error
        return None if value is None else _part(value, byte_range)

    async def exists(self, key: str) -> bool:
        try:
            await self.fs._info((self.folder / key).address)
        except client_errors() as error:
            failure = file_error(str(self.folder / key), error)
            if isinstance(failure, NoSuchObjectError):
                return False
            raise failure from error
        return True

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        try:
            await super().set(key, value, byte_range)
        except client_errors() as error:
            raise file_error(str(self.folder / key), error) from error

    async def delete_dir(self, prefix: str) -> None:
        try:
            await super().delete_dir(prefix)
        except client_errors() as error:
            failure = file_error(str(self.folder / prefix), error)
            if not isinstance(failure, NoSuchObjectError):
                raise failure from error


def _part(value: Buffer, wanted: ByteRequest | None) -> Buffer:
    """Return the requested bytes, also from a web server without range requests, which sends all bytes."""
    if isinstance(wanted, RangeByteRequest) and len(value) > wanted.end - wanted.start:
        return value[wanted.start : wanted.end]
    if isinstance(wanted, SuffixByteRequest) and len(value) > wanted.suffix:
        return value[len(value) - wanted.suffix :]
    assert not isinstance(wanted, OffsetByteRequest)  # zarr's codecs do not use it
    return value


def _reopened(url: str, read_only: bool) -> str | FsspecStore:
    return zarr_store(locate(url), read_only=read_only)

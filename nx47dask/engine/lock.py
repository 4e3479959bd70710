"""Lock of a run folder, which keeps a second client out.

On a file system it is a lock of the operating system, which ends with the process. In an object store it is a lease:
an object that only one client can create and that its owner writes again every few seconds. Another client may take it
over when the owner has ended on the same machine, or has been silent for a minute by the clock of the store.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nx47dask.errors import RunLockedError
from nx47dask.files.paths import RemotePath, as_remote

__all__ = ["LOCK_FILE", "lock_owner", "lock_run"]

logger = logging.getLogger(__name__)

LOCK_FILE = "run.lock"
RENEWED_S = 15.0
STALE_S = 60.0


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the run folder for this client. The lock ends with the process, however the process ends.

    Raises
    ------
    RunLockedError
        Another client holds it.
    """
    if remote := as_remote(folder):
        with _leased(remote):
            yield
        return
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            raise _locked(folder, stream.read().strip() or "another client") from error
        stream.truncate(0)
        stream.write(f"{_owner()}\n")
        stream.flush()
        yield


def lock_owner(folder: Path) -> str | None:
    """Name the client that works in a run folder, such as ``process 4711 on node3``; None if there is none.

    It takes no lock and writes nothing. In an object store it compares the clocks of the store and of this machine.
    """
    path = folder / LOCK_FILE
    if remote := as_remote(path):
        info = remote.info()
        if info is None:
            return None
        holder = json.loads(remote.read_bytes())
        silent_s = (datetime.now(UTC) - info["LastModified"]).total_seconds()
        return None if _has_ended(holder) or silent_s > STALE_S else str(holder["owner"])
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)  # ends with the block
        except BlockingIOError:
            return stream.read().strip() or "another client"
    return None


@contextmanager
def _leased(folder: RemotePath) -> Iterator[None]:
    path = folder / LOCK_FILE
    lease = json.dumps({"owner": _owner(), "pid": os.getpid(), "machine": _machine(), "id": uuid.uuid4().hex}).encode()
    version = _acquire(path, lease)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, lease, version, ended), name="nx47dask-lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        _release(path, version)


def _acquire(path: RemotePath, lease: bytes) -> str:
    """Create the lease, or take over one whose owner is gone; return its version."""
    try:
        return path.put(lease, None)
    except FileExistsError:
        before = path.info()
    if before is None:  # released just now
        return _acquire(path, lease)
    holder, silent_s = json.loads(path.read_bytes()), _silent_s(path)
    if not _has_ended(holder) and silent_s < STALE_S:
        note = f"; if it was killed, its lock ends {STALE_S:.0f} s after its last sign of life, {silent_s:.0f} s ago"
        raise _locked(path.parent, holder["owner"], note)
    try:
        return path.put(lease, before["ETag"])
    except FileExistsError as error:
        raise _locked(path.parent, "another client") from error


def _renew(path: RemotePath, lease: bytes, version: str, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_S):
        try:
            path.put(lease, version)
        except FileExistsError:
            logger.warning("%s: another client has taken the lock over; the ledger will refuse what is done here", path)
            return
        except OSError as error:
            logger.warning("%s: cannot be renewed (%s)", path, error)


def _release(path: RemotePath, version: str) -> None:
    try:
        info = path.info()
        if info is not None and info["ETag"] == version:
            path.unlink()
    except OSError as error:
        logger.warning("%s: cannot be deleted (%s); it ends by itself after %d s", path, error, STALE_S)


def _silent_s(path: RemotePath) -> float:
    """Return the seconds since the lease was written, both times by the clock of the store."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    probe.write_bytes(b"")
    now, written = probe.info(), path.info()
    probe.unlink()
    if now is None or written is None:
        return 0.0
    silent: float = (now["LastModified"] - written["LastModified"]).total_seconds()
    return silent


def _has_ended(holder: dict[str, Any]) -> bool:
    """Return True if the owner was a process of this machine that has ended."""
    if holder["machine"] != _machine():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _locked(folder: object, owner: str, note: str = "") -> RunLockedError:
    return RunLockedError(
        f"{folder}: {owner} is working in this run folder", hint=f"wait for it, or choose another --out{note}"
    )

"""Object stores and web servers through fsspec: connections, and their errors as errors of files.

Endpoint, region and credentials come from the usual environment of each process (``AWS_*``, ``~/.aws``). Tasks and
paths never carry them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from nx47dask.errors import InputError, Nx47Error

__all__ = ["PROTOCOLS", "NoSuchObjectError", "client_errors", "file_error", "file_errors", "filesystem"]

PROTOCOLS = {"s3": "s3", "http": "http", "https": "http"}
"""Known protocols, and the extra of the package that each needs."""
ATTEMPTS = 8
"""Tries of a request that gets no answer or a temporary refusal (429, 5xx); the pauses between them grow."""
LONGEST_PAUSE_S = 20.0
SILENCE_S = 60.0
CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, here and on every worker; a bucket must also "
    "allow to list it"
)


def filesystem(protocol: str) -> Any:
    """Return the fsspec filesystem of a protocol for the environment of this process.

    Parameters
    ----------
    protocol : {"s3", "http", "https"}

    Raises
    ------
    InputError
        The packages that the protocol needs are not installed.
    """
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _filesystem(PROTOCOLS[protocol], settings)


@lru_cache(maxsize=32)
def _filesystem(extra: str, settings: tuple[tuple[str, str], ...]) -> Any:
    # A cache of listings would hide files of other processes; fsspec's cache of filesystems ignores the environment.
    shared = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        if extra == "s3":
            from s3fs import S3FileSystem

            return S3FileSystem(**shared, **_s3_options(dict(settings)))
        import aiohttp_retry  # noqa: F401  # part of the same extra
        from fsspec.implementations.http import HTTPFileSystem

        return HTTPFileSystem(**shared, get_client=_retrying_client)
    except ImportError as error:
        raise InputError(
            f"{extra}:// needs the package {error.name}", hint=f'install it with pip install "nx47dask[{extra}]"'
        ) from error


def _s3_options(settings: dict[str, str]) -> dict[str, Any]:
    from botocore.session import Session

    unsigned = settings.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")
    retries = {
        "mode": settings.get("AWS_RETRY_MODE", "standard"),
        "total_max_attempts": int(settings.get("AWS_MAX_ATTEMPTS", ATTEMPTS)),
    }
    return {
        "anon": unsigned or Session().get_credentials() is None,
        "config_kwargs": {"retries": retries, "read_timeout": SILENCE_S},
        "max_concurrency": 1,  # with more, s3fs asks for the size of an object before it reads it
    }


async def _retrying_client(loop: Any = None, **options: Any) -> Any:
    """Open an HTTP session for fsspec that retries requests and uses the proxies of the environment."""
    import aiohttp
    import aiohttp_retry

    pauses = aiohttp_retry.JitterRetry(
        attempts=ATTEMPTS,
        start_timeout=0.1,
        max_timeout=LONGEST_PAUSE_S,
        random_interval_size=0.3,
        statuses={429},
        retry_all_server_errors=True,
        exceptions={aiohttp.ClientConnectionError, TimeoutError},
    )
    limits = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    session = aiohttp.ClientSession(loop=loop, timeout=limits, trust_env=True, **options)
    return aiohttp_retry.RetryClient(client_session=session, retry_options=pauses)


def client_errors() -> tuple[type[Exception], ...]:
    """Return OSError and the error classes of the remote clients that are loaded."""
    names = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
    )
    return (OSError, *(getattr(sys.modules[module], name) for module, name in names if module in sys.modules))


class NoSuchObjectError(FileNotFoundError):
    """Error for an object that does not exist in an existing bucket or server."""


@contextmanager
def file_errors(url: str) -> Iterator[None]:
    """Turn the errors of a remote store into those of a local file, with the URL and the reason."""
    try:
        yield
    except client_errors() as error:
        if isinstance(error, Nx47Error):
            raise
        raise file_error(url, error) from error


def file_error(url: str, error: Exception) -> OSError:
    """Return a FileNotFoundError, FileExistsError, PermissionError or OSError that says why a URL cannot be used."""
    # For HTTP, fsspec reports every failure as "not found" and keeps the real error as the cause.
    cause = error.__cause__ if url.startswith("http") and isinstance(error.__cause__, client_errors()) else error
    answer = getattr(error.__cause__, "response", None) or {}
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    status = getattr(cause, "status", None)
    reason = getattr(cause, "strerror", None) or getattr(cause, "message", None) or str(cause) or type(cause).__name__
    if code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return FileExistsError(errno.EEXIST, "somebody else has written it", url)
    if code == "NoSuchBucket":
        return FileNotFoundError(errno.ENOENT, "no such bucket", url)
    if status in (404, 410) or (status is None and isinstance(cause, FileNotFoundError)):
        return NoSuchObjectError(errno.ENOENT, "no such object" if url.startswith("s3") else "no such file", url)
    if status in (401, 403) or isinstance(cause, PermissionError):
        hint = f"; {CREDENTIALS_HINT}" if url.startswith("s3") else ""
        return PermissionError(errno.EACCES, f"no permission ({reason}){hint}", url)
    if status is not None:
        return OSError(errno.EIO, f"the server answers {status} ({reason})", url)
    return OSError(getattr(cause, "errno", None) or errno.EIO, reason, url)

"""Connection to a scheduler that runs already."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from distributed import Client, Security

from nx47dask.cluster.spec import ConnectSpec
from nx47dask.errors import ClusterError

__all__ = ["connect"]

CONNECT_TIMEOUT_S = 20.0
FIRST_WORKER_TIMEOUT_S = 60.0


def connect(spec: ConnectSpec) -> Client:
    """Connect to a scheduler that has workers.

    Raises
    ------
    ClusterError
        No scheduler with workers answers.
    """
    place = spec.address or _scheduler_address(str(spec.scheduler_file))
    try:
        client = Client(address=place, timeout=CONNECT_TIMEOUT_S, security=_security(spec), set_as_default=False)
        with ExitStack() as unless_ready:
            unless_ready.enter_context(client)
            client.wait_for_workers(1, timeout=FIRST_WORKER_TIMEOUT_S)
            unless_ready.pop_all()
    except (OSError, TimeoutError, TypeError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"{place}: no scheduler with workers answers ({error})",
            hint="start one with `dask scheduler` and `dask worker`",
        ) from error
    return client


def _security(spec: ConnectSpec) -> Security | None:
    if spec.tls_ca_file is None:
        return None
    return Security(
        require_encryption=True,
        tls_ca_file=spec.tls_ca_file,
        tls_client_cert=spec.tls_cert,
        tls_client_key=spec.tls_key,
    )


def _scheduler_address(path: str) -> str:
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ClusterError(
            f"{path}: not a scheduler file ({type(error).__name__}: {error})",
            hint="`dask scheduler --scheduler-file FILE` writes one",
        ) from error

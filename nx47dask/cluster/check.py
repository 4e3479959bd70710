"""Check that a cluster can do a run: properties of each worker, its versions, the files that it can reach."""

from __future__ import annotations

import platform
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from distributed import Client, TimeoutError, get_worker, wait

from nx47dask.cluster.base import ClusterSpec
from nx47dask.cluster.gpus import Gpu, visible_gpus
from nx47dask.cluster.start import await_workers, open_client, workers_of
from nx47dask.engine.worker import NUMERIC_PACKAGES, release
from nx47dask.errors import ClusterError
from nx47dask.files.paths import locate

__all__ = ["Check", "WorkerReport", "check_cluster"]

ANSWER_TIMEOUT_S = 60.0
DECISIVE = ("python", "nx47dask", *NUMERIC_PACKAGES, "dask", "distributed")
"""Packages that must be the same everywhere: they decide the bits of a result, or the protocol between processes."""
PACKAGES = (*DECISIVE[1:], "imagecodecs", "numcodecs", "tifffile", "zarr")
NONE = "none"
_ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True)
class WorkerReport:
    """Properties of one worker.

    Attributes
    ----------
    name, host : str
    threads : int
    memory_limit_bytes : int
        0 where nothing sets a limit.
    resources : mapping
        Resources that distinguish its pool from the others.
    gpus : sequence of Gpu
        GPUs that it can use.
    disk_free_bytes : int
        Free space where it keeps its own files.
    differences : mapping of package to version
        Packages in another version than the client's.
    answered : bool
        False where the worker failed or did not answer in time.
    """

    name: str
    host: str
    threads: int
    memory_limit_bytes: int
    resources: Mapping[str, float]
    gpus: Sequence[Gpu] = ()
    disk_free_bytes: int = 0
    differences: Mapping[str, str] = field(default_factory=dict)
    answered: bool = True


@dataclass
class Check:
    """Result of a check; without problems, a run can be started.

    Attributes
    ----------
    versions : dict
        Versions of the client's packages.
    workers : list of WorkerReport
    problems : dict
        Each problem with the names of the workers that have it; no names for a problem of the whole cluster.
    """

    versions: dict[str, str]
    workers: list[WorkerReport] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def add(self, problem: str, *workers: str) -> None:
        """Note a problem of some workers, or of the whole cluster."""
        self.problems.setdefault(problem, []).extend(workers)


def check_cluster(spec: ClusterSpec, inputs: Sequence[str], out: str | None, timeout_s: float) -> Check:
    """Start or reach a cluster, run a task on every worker, and compare their answers.

    Parameters
    ----------
    spec : ClusterSpec
    inputs : sequence of str
        Paths or URLs that every worker must be able to read.
    out : str or None
        Folder or URL that every worker must be able to write to; a small file is written there and deleted.
    timeout_s : float
        Longest time to wait for the workers.

    Raises
    ------
    ClusterError
        The cluster cannot be started or reached, or has no workers in time.
    """
    check = Check(_versions())
    with open_client(spec.model_copy(update={"no_worker_timeout_s": timeout_s})) as client:
        try:
            await_workers(client, spec, spec.expected_workers, timeout_s)
        except ClusterError as error:
            check.add(str(error))
        _compare_scheduler(client, check)
        with _token(out, check) as token:
            _ask_workers(client, inputs, token, check)
    check.workers.sort(key=lambda worker: (len(worker.name), worker.name))
    return check


def _ask_workers(client: Client, inputs: Sequence[str], token: Path | None, check: Check) -> None:
    workers = workers_of(client)
    places = [locate(text) for text in inputs]
    futures = {
        address: client.submit(
            _look, places, token, workers=[address], key=("nx47dask-check", n), pure=False, allow_other_workers=False
        )
        for n, address in enumerate(workers)
    }
    with suppress(TimeoutError), client.as_current():
        wait(list(futures.values()), timeout=ANSWER_TIMEOUT_S)
    for address, future in futures.items():
        worker = workers[address]
        name = str(worker["name"]).removeprefix(f"{address.split('://')[0]}://")
        if future.status == "finished":
            answer = future.result()
            for problem in [*answer.pop("problems"), *_serious(answer["versions"], check.versions)]:
                check.add(problem, name)
            answer["differences"] = _differences(answer.pop("versions"), check.versions)
        else:
            error = future.exception() if future.status == "error" else f"no answer within {ANSWER_TIMEOUT_S:g} s"
            check.add(f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error, name)
            answer = {"host": worker["host"], "answered": False}
        limit = int(worker["memory_limit"] or 0)
        check.workers.append(
            WorkerReport(name, answer.pop("host"), worker["nthreads"], limit, dict(worker["resources"]), **answer)
        )


def _look(inputs: Sequence[Path], token: Path | None) -> dict[str, Any]:
    """Collect the answer of a worker; runs there."""
    problems = [problem for path in inputs if (problem := _unreadable(path))]
    if token is not None and (problem := _unwritable(token)):
        problems.append(problem)
    return {
        "host": socket.gethostname(),
        "gpus": visible_gpus(),
        "disk_free_bytes": shutil.disk_usage(get_worker().local_directory).free,
        "versions": _versions(),
        "problems": problems,
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = release(name)
        except metadata.PackageNotFoundError:
            versions[name] = NONE
    return versions


def _differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """Return the packages whose version is not the client's; the last number of Python's version does not count."""
    return {
        name: version
        for name, version in theirs.items()
        if (_minor(version) != _minor(ours[name]) if name == "python" else version != ours[name])
    }


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _serious(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    different = _differences(theirs, ours)
    return [
        f"{name} is {different[name]} there and {ours[name]} here; install the same"
        for name in DECISIVE
        if name in different
    ]


def _compare_scheduler(client: Client, check: Check) -> None:
    """Note differences of the scheduler. It needs no nx47dask, but the client's versions of Python and Dask."""
    told: Any = client.get_versions()
    known = {**told["scheduler"]["packages"], "python": told["scheduler"]["host"]["python"]}
    spoken = {name: str(known[name]) for name in ("python", "dask", "distributed")}
    for problem in _serious(spoken, check.versions):
        check.add(f"scheduler: {problem}")


def _unreadable(path: Path) -> str:
    """Name the problem that keeps this process from reading a file, a folder or a store; empty if it can."""
    try:
        if path.is_file():
            with path.open("rb") as stream:
                stream.read(1)
            return ""
        metadata_files = [path / name for name in _ZARR_METADATA if (path / name).is_file()]
        if metadata_files:
            metadata_files[0].read_bytes()
            return ""
        if path.is_dir():
            next(iter(path.iterdir()), None)
            return ""
    except OSError as error:
        return f"input {path}: cannot be read ({error})"
    return f"input {path}: not there"


@contextmanager
def _token(out: str | None, check: Check) -> Iterator[Path | None]:
    """Write a small file to the output folder, by which a worker knows that its folder is the client's; delete it."""
    if out is None:
        yield None
        return
    folder = locate(out)
    made = not folder.exists()
    token = folder / f".nx47dask-check-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        token.write_bytes(token.name.encode())
    except OSError as error:
        check.add(f"out {folder}: cannot be written from here ({error})")
        yield None
        return
    try:
        yield token
    finally:
        token.unlink()
        if made:
            with suppress(OSError):  # an object store has no folders
                folder.rmdir()


def _unwritable(token: Path) -> str:
    """Name the problem that keeps this process from writing beside the client's token; empty if it can."""
    folder = token.parent
    own = token.with_name(f"{token.name}-{uuid.uuid4().hex[:8]}")
    try:
        if token.read_bytes() != token.name.encode():
            return f"out {folder}: is another folder there than here"
        own.write_bytes(b"written")
        own.unlink()
    except FileNotFoundError:
        return f"out {folder}: is another folder there than here; it has to be shared by all"
    except OSError as error:
        return f"out {folder}: cannot be written ({error})"
    return ""

"""Clusters on this machine: what their workers are set to, where they listen, GPU pools, scaling by themselves."""

from __future__ import annotations

import os
import signal
import sys
import time

import dask
import psutil
import pytest
from distributed import get_worker

from nx47dask.cluster.dask_pool import DaskPool
from nx47dask.cluster.kinds import local
from nx47dask.cluster.spec import Bounds, CudaSpec, JobQueueSpec, LocalSpec
from nx47dask.cluster.start import open_client
from nx47dask.engine import Batch, Task, execute
from nx47dask.errors import ClusterError

PRELOADED = "NX47DASK_TEST_PRELOADED"


def look():
    """What a task sees of its process."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", PRELOADED)
    memory = dask.config.get("distributed.worker.memory")
    return {
        "environment": {name: os.environ.get(name) for name in names},
        "interrupt": signal.getsignal(signal.SIGINT).name,
        "memory": {name: memory[name] for name in ("target", "spill", "pause", "terminate")},
        "threads": get_worker().state.nthreads,
        "limit": get_worker().memory_manager.memory_limit,
    }


def pipeline(count, resources=None, seconds=0.0):
    tasks = [Task(n, f"task {n}", where, (seconds,), 1, resources) for n in range(count)]
    return (yield Batch("stage", tasks, count, count))


def where(seconds=0.0):
    """The worker that ran the task, and the GPUs that it could see."""
    time.sleep(seconds)
    return {"on": str(get_worker().name), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


def listening(process):
    """Addresses on which a process and its children accept connections."""
    family = [process, *process.children(recursive=True)]
    return {c.laddr.ip for one in family for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def test_worker_processes(tmp_path, monkeypatch):
    preload = tmp_path / "mine.py"
    preload.write_text(f"import os\nos.environ[{PRELOADED!r}] = 'yes'\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = dask.config.get("distributed.worker.memory.target")
    listened = listening(psutil.Process())
    spec = LocalSpec(workers=1, memory_limit="1GiB", dask={"distributed.worker.preload": [str(preload)]})
    with open_client(spec) as client:
        seen = client.submit(look).result(timeout=60)
        assert client.scheduler_info()["services"]["dashboard"]
        assert listening(psutil.Process()) - listened <= {"127.0.0.1"}
        assert "127.0.0.1" in listening(psutil.Process())
    assert seen["environment"] == {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        PRELOADED: "yes",
    }
    assert seen["interrupt"] == "SIG_IGN", "our preload is there beside the user's"
    assert seen["memory"] == {"target": False, "spill": False, "pause": False, "terminate": 0.95}
    assert seen["threads"] == 1
    assert seen["limit"] == 1 << 30
    assert dask.config.get("distributed.worker.memory.target") == before, "nothing stays set"
    assert (os.environ["OMP_NUM_THREADS"], "MALLOC_MMAP_MAX_" in os.environ) == ("7", False)


def test_workers_that_fit(monkeypatch):
    monkeypatch.setattr(local, "CPU_COUNT", 8)
    monkeypatch.setattr(local, "MEMORY_LIMIT", 32 << 30)
    assert local.workers_that_fit(None) == 8
    assert local.workers_that_fit(4 << 30) == 8
    assert local.workers_that_fit(5 << 30) == 6
    assert local.workers_that_fit(64 << 30) == 1


def test_gpu_tasks_on_gpu_workers_only(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa,5")
    with open_client(CudaSpec(kind="cuda", workers=1, memory_limit="1GiB")) as client:
        pool = DaskPool(client)
        volumes = {"gpu": pipeline(12, {"GPU": 1.0}, 0.05), "cpu": pipeline(12, None, 0.05)}
        results, errors = execute(volumes, pool)
    assert not errors
    assert {record["on"] for record in results["gpu"].values()} == {"gpu-0", "gpu-1"}
    assert {record["gpus"] for record in results["gpu"].values()} == {"GPU-aaaa", "5"}
    assert {(record["on"], record["gpus"]) for record in results["cpu"].values()} == {("cpu-0", "")}


def test_without_gpu_workers_inference_runs_on_cpu_workers():
    with open_client(LocalSpec(workers=1, memory_limit="1GiB")) as client:
        results, errors = execute({"gpu": pipeline(2, {"GPU": 1.0})}, DaskPool(client))
    assert not errors
    assert {record["on"] for record in results["gpu"].values()} == {"0"}


def test_no_gpu_is_said(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ClusterError, match="0 GPUs are visible"), open_client(CudaSpec(kind="cuda")):
        pass


def test_scales_within_bounds():
    fast = {"distributed.adaptive": {"interval": "100ms", "target-duration": "100ms"}}
    spec = LocalSpec(workers=Bounds(minimum=1, maximum=2), memory_limit="1GiB", dask=fast)
    with open_client(spec) as client:
        assert len(client.scheduler_info()["workers"]) == 1
        futures = [client.submit(where, 0.25, pure=False) for _ in range(40)]
        assert len({record["on"] for record in client.gather(futures)}) == 2


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    monkeypatch.delitem(sys.modules, "nx47dask.cluster.kinds.jobqueue", raising=False)
    spec = JobQueueSpec(kind="slurm", workers=1, memory="1GiB")
    with pytest.raises(ClusterError, match=r'pip install "nx47dask\[slurm\]"'), open_client(spec):
        pass

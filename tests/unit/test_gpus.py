"""Which GPUs a process finds, from a driver that is made up."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from nx47dask.cluster import gpus
from nx47dask.cluster.gpus import Gpu

FIRST = Gpu("GPU-aa11", "NVIDIA H100 80GB HBM3", 81559 << 20)
SECOND = Gpu("GPU-bb22", "NVIDIA L4", 23034 << 20)


@pytest.fixture(params=["nvml", "nvidia-smi"])
def driver(request, tmp_path, monkeypatch):
    """Two GPUs, told by NVML or by nvidia-smi."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if request.param == "nvml":
        here = [FIRST, SECOND]
        nvml = SimpleNamespace(
            NVMLError=RuntimeError,
            nvmlInit=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlDeviceGetCount=lambda: len(here),
            nvmlDeviceGetHandleByIndex=lambda n: here[n],
            nvmlDeviceGetUUID=lambda gpu: gpu.identifier,
            nvmlDeviceGetName=lambda gpu: gpu.name,
            nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(total=gpu.memory_bytes),
        )
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return
    monkeypatch.setitem(sys.modules, "pynvml", None)
    script = tmp_path / "nvidia-smi"
    rows = [f"{n}, {gpu.identifier}, {gpu.name}, {gpu.memory_bytes >> 20}" for n, gpu in enumerate((FIRST, SECOND))]
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{row}'\n" for row in rows))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [FIRST, SECOND]),
        ("1", [Gpu("1", SECOND.name, SECOND.memory_bytes)]),
        ("GPU-bb,0", [Gpu("GPU-bb", SECOND.name, SECOND.memory_bytes), Gpu("0", FIRST.name, FIRST.memory_bytes)]),
        ("0,-1,1", [Gpu("0", FIRST.name, FIRST.memory_bytes)]),
        ("MIG-77", [Gpu("MIG-77")]),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_gpus(driver, visible, expected, monkeypatch):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.visible_gpus() == expected


def test_no_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible_gpus() == []


def test_affinity_comes_with_dask_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    assert gpus.cpus_beside("0") is None
    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "dask_cuda.plugins", SimpleNamespace(CPUAffinity=lambda cpus: ("kept on", cpus)))
    affinity = {0: [0, 1], "GPU-bb22": [2, 3]}.__getitem__
    monkeypatch.setitem(sys.modules, "dask_cuda.utils", SimpleNamespace(get_cpu_affinity=affinity))
    assert gpus.cpus_beside("0") == ("kept on", [0, 1])
    assert gpus.cpus_beside("GPU-bb22") == ("kept on", [2, 3])

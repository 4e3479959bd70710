"""NVIDIA GPUs that a process can use, listed by the driver; torch is not needed."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Gpu", "cpus_beside", "visible_gpus"]

DRIVER_TIMEOUT_S = 30.0
_FIELDS = "index,uuid,name,memory.total"


@dataclass(frozen=True)
class Gpu:
    """GPU that this process can use.

    Attributes
    ----------
    identifier : str
        Name for ``CUDA_VISIBLE_DEVICES``.
    name : str
        Name of the model; empty where the driver could not be asked.
    memory_bytes : int
        Total memory; 0 where the driver could not be asked.
    """

    identifier: str
    name: str = ""
    memory_bytes: int = 0


def visible_gpus() -> list[Gpu]:
    """List the GPUs that ``CUDA_VISIBLE_DEVICES`` names; without that variable, all of the machine.

    The driver is asked through NVML (extra ``gpu``), else through ``nvidia-smi``. Where neither is available, the
    variable is taken without a check.
    """
    here = _from_nvml() or _from_nvidia_smi()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(here.values())
    gpus = []
    for identifier in map(str.strip, named.split(",")):
        if not identifier.isdecimal() and not identifier.startswith(("GPU-", "MIG-")):
            break  # CUDA ignores what follows
        matches = [gpu for index, gpu in here.items() if identifier == index or gpu.identifier.startswith(identifier)]
        gpus.append(Gpu(identifier, matches[0].name, matches[0].memory_bytes) if matches else Gpu(identifier))
    return gpus


def cpus_beside(identifier: str) -> Any | None:
    """Return a worker plugin that keeps a process on the CPUs next to a GPU; None without dask-cuda (extra ``gpu``)."""
    try:
        from dask_cuda.plugins import CPUAffinity
        from dask_cuda.utils import get_cpu_affinity
    except ImportError:
        return None
    return CPUAffinity(get_cpu_affinity(int(identifier) if identifier.isdecimal() else identifier))


def _from_nvml() -> dict[str, Gpu]:
    """List the GPUs by index, through NVML; empty where it is not available."""
    try:
        import pynvml
    except ImportError:
        return {}
    with _nvml(pynvml) as there:
        return {str(n): _described(pynvml, n) for n in range(pynvml.nvmlDeviceGetCount() if there else 0)}


@contextmanager
def _nvml(pynvml: Any) -> Iterator[bool]:
    """Open the driver's library; yield False where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _described(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
    return Gpu(str(uuid), str(name), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))


def _from_nvidia_smi() -> dict[str, Gpu]:
    """List the GPUs by index, through ``nvidia-smi``; empty where it fails."""
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [[field.strip() for field in row] for row in csv.reader(done.stdout.splitlines())]
    return {row[0]: Gpu(row[1], row[2], int(row[3]) << 20) for row in rows if len(row) == 4 and row[3].isdecimal()}

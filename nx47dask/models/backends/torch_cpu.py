"""Networks on torch on a CPU. Imports torch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nx47dask.errors import ModelError
from nx47dask.kernels.torch_threads import torch_threads
from nx47dask.models.backends.runtime import Runtime
from nx47dask.models.backends.surface import as_network, failures_named
from nx47dask.models.base import ModelInfo, OnnxNetwork

__all__ = ["open_network"]

Floats = NDArray[np.float32]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt
_KEPT_BYTES = 256 << 20


def open_network(networks: Sequence[nn.Module | OnnxNetwork], info: ModelInfo, runtime: Runtime) -> Any:
    """Open the network as a function from batches to surfaces, under autocast for bfloat16.

    Raises
    ------
    ModelError
        This CPU has no bfloat16.
    """
    reduced = runtime.precision == "bfloat16"
    if reduced and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        # torch would compute without it, 100 times slower than in float32.
        raise ModelError(f"{runtime}: this CPU has no bfloat16 (AVX-512 or AMX)", hint="set precision: float32")
    _keep_large_blocks()
    network: Any = as_network(networks, info)
    if runtime.compile:
        network = torch.compile(network, dynamic=False)

    def predict(batch: Floats) -> Floats:
        with (
            torch_threads(runtime.threads),
            torch.inference_mode(),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced),
            failures_named(info),
        ):
            surface: Floats = network(torch.from_numpy(batch)).numpy()
        return surface

    def run(batches: Iterable[Floats]) -> Iterator[Floats]:
        return map(predict, batches)

    return run


def _keep_large_blocks() -> None:
    """Make glibc keep the memory of freed layers for the next ones, as the workers of a local cluster do.

    By default glibc returns every large block to the system at once, and the page faults that follow cost as much as
    the layers. Up to 256 MiB at the end of the heap stay with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)

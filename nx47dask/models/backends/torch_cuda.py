"""Networks on torch on a CUDA device: copies run during the computation, one batch ahead. Imports torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nx47dask.errors import DeviceMemoryError, ModelError
from nx47dask.models.backends.runtime import Runtime
from nx47dask.models.backends.surface import as_network, failures_named
from nx47dask.models.base import ModelInfo, OnnxNetwork

__all__ = ["open_network"]

Floats = NDArray[np.float32]

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def open_network(networks: Sequence[nn.Module | OnnxNetwork], info: ModelInfo, runtime: Runtime) -> Any:
    """Open the network as a function from batches to surfaces, under autocast for bfloat16 and float16.

    Raises
    ------
    ModelError
        There is no CUDA device, or it has no bfloat16.
    """
    if not torch.cuda.is_available():
        raise ModelError(
            f"{runtime}: this worker finds no CUDA device", hint="set device: cpu, or give the run GPU workers"
        )
    if runtime.precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ModelError(f"{runtime}: {torch.cuda.get_device_name()} has no bfloat16", hint="set precision: float16")
    with _memory_named(info, runtime):
        network: Any = as_network(networks, info).to("cuda")
    if runtime.compile:
        network = torch.compile(network, dynamic=False)
    forward = _Forward(network, info, runtime)

    def run(batches: Iterable[Floats]) -> Iterator[Floats]:
        with _memory_named(info, runtime):
            yield from _pipelined(forward, batches)

    return run


@contextmanager
def _memory_named(info: ModelInfo, runtime: Runtime) -> Iterator[None]:
    """Turn the error of a full device into one that names the model and says what to change."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"{info.path}: {runtime.batch} windows of {info.window_zyx} voxels do not fit in the memory of the device "
            f"({error})",
            hint="lower batch, or end what else runs on it",
        ) from error


class _Forward:
    """Network that runs one batch on the device by deterministic kernels; float32 is computed in full, without TF32."""

    def __init__(self, network: Any, info: ModelInfo, runtime: Runtime) -> None:
        self.network = network
        self.info = info
        self.runtime = runtime

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        dtype = _TYPES[self.runtime.precision]
        with (
            torch.inference_mode(),
            torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            failures_named(self.info),
        ):
            surface: torch.Tensor = self.network(batch)
        return surface


class _Slot:
    """Buffers of one batch in flight: two pinned ones, which the device accesses directly, and one on the device."""

    def __init__(self, batch: int, window_zyx: tuple[int, ...]) -> None:
        self.sent = torch.empty((batch, 1, *window_zyx), pin_memory=True)
        self.image = torch.empty((batch, 1, *window_zyx), device="cuda")
        self.received = torch.empty((batch, *window_zyx), pin_memory=True)
        self.done = torch.cuda.Event()

    def start(self, values: Floats, forward: _Forward, upload: torch.cuda.Stream, download: torch.cuda.Stream) -> None:
        """Queue the copy to the device, the network and the copy back; return before they are done."""
        compute = torch.cuda.current_stream()
        self.sent.copy_(torch.from_numpy(values))
        with torch.cuda.stream(upload):
            self.image.copy_(self.sent, non_blocking=True)
        compute.wait_stream(upload)
        surface = forward(self.image)
        download.wait_stream(compute)
        with torch.cuda.stream(download):
            self.received.copy_(surface, non_blocking=True)
        surface.record_stream(download)
        self.done.record(download)

    def result(self) -> Floats:
        """Wait for the batch and return a copy of its result, because the buffer is used again."""
        self.done.synchronize()
        return self.received.numpy().copy()


def _pipelined(forward: _Forward, batches: Iterable[Floats]) -> Iterator[Floats]:
    """Yield results in order with two slots in turn, so that the device computes while the caller works.

    A slot is filled again only after its result was taken, so nothing that is still read is overwritten.
    """
    upload, download = torch.cuda.Stream(), torch.cuda.Stream()
    slots = [_Slot(forward.runtime.batch, forward.info.window_zyx) for _ in range(2)]
    upload.wait_stream(torch.cuda.current_stream())  # earlier work may still use the memory of the slots
    waiting: _Slot | None = None
    try:
        for values, slot in zip(batches, itertools.cycle(slots), strict=False):
            slot.start(values, forward, upload, download)
            if waiting is not None:
                yield waiting.result()
            waiting = slot
        if waiting is not None:
            yield waiting.result()
    finally:
        torch.cuda.synchronize()  # a caller that stops early must not free buffers under a copy

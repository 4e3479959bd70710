"""Runtimes of networks: one small interface to torch on CPU and CUDA, OpenVINO and ONNX Runtime.

The libraries are imported when a network is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import ModelError
from nx47dask.models.backends.runtime import (
    Backend,
    Device,
    Runtime,
    require_versions,
    resolve_backend,
    runtimes_here,
)
from nx47dask.models.base import ModelInfo, load_networks

__all__ = ["Device", "Predictor", "Runtime", "predictor_for", "resolve_backend", "runtimes_here"]

Floats = NDArray[np.float32]
Run = Callable[[Iterable[Floats]], Iterator[Floats]]

_MODULES: dict[tuple[Device, Backend], str] = {
    ("cuda", "torch"): "torch_cuda",
    ("cpu", "torch"): "torch_cpu",
    ("cpu", "openvino"): "openvino_network",
    ("cuda", "onnxruntime"): "onnxruntime_network",
    ("cpu", "onnxruntime"): "onnxruntime_network",
}
_MOST_OPEN = 8  # models that one process keeps loaded, so that those of an ensemble fit
_opening = threading.Lock()


class Predictor:
    """Loaded network that takes batches of windows and returns surface probabilities or logits.

    The answer for a window has the same bits in every call, in every process and at every place of a batch, on one kind
    of device and with one set of software versions.

    Parameters
    ----------
    info : ModelInfo
    runtime : Runtime
    network : callable
        Function of the backend, from batches to surfaces; it checks nothing.
    """

    def __init__(self, info: ModelInfo, runtime: Runtime, network: Run) -> None:
        self.info = info
        self.runtime = runtime
        self._network = network

    def run(self, batches: Iterable[Floats]) -> Iterator[Floats]:
        """Predict batches in order. At most two are in memory, so the source may be a generator over a large volume.

        Parameters
        ----------
        batches : iterable of ndarray of float32, (batch, 1, Z, Y, X)
            Normalised windows of the model's size, ``runtime.batch`` in each. The source may reuse an array once the
            next batch is asked for.

        Yields
        ------
        ndarray of float32, (batch, Z, Y, X)
            Values of the surface class, a new array for each batch. Where the model's ``values`` are "probability",
            probabilities in [0, 1]. Where they are "logit", log-odds: for a sigmoid the output itself, for a softmax
            the output minus the log-sum-exp of the other classes, which for two classes is the difference. Several
            members are averaged in the same terms.

        Raises
        ------
        ModelError
            A batch has another shape or dtype, or the network returns another number of classes or another shape than
            its description says, values that are not finite, or probabilities outside [0, 1].
        """
        for number, surface in enumerate(self._network(map(self._require_batch, batches))):
            self._require_sound(surface, number)
            yield surface

    def _require_batch(self, batch: Floats) -> Floats:
        expected = (self.runtime.batch, 1, *self.info.window_zyx)
        if batch.shape != expected or batch.dtype != np.float32:
            raise ModelError(f"{self.info.name}: a batch is {batch.dtype} {batch.shape}; expected float32 {expected}")
        return np.ascontiguousarray(batch)

    def _require_sound(self, surface: Floats, number: int) -> None:
        expected = (self.runtime.batch, *self.info.window_zyx)
        if surface.shape != expected:
            raise ModelError(f"{self.info.path}: the answer has the shape {surface.shape}; expected {expected}")
        low, high = (-np.inf, np.inf) if self.info.values == "logit" else (0, 1)
        least, most = surface.min(), surface.max()  # either is NaN where any value is
        if np.isfinite(least) and np.isfinite(most) and low <= least and most <= high:
            return
        bad = ~np.isfinite(surface) | (surface < low) | (surface > high)
        entry = int(bad.any(axis=(1, 2, 3)).argmax())
        raise ModelError(
            f"{self.info.path}: window {number * self.runtime.batch + entry} of a block: {int(bad[entry].sum())} of "
            f"{bad[entry].size} values of the surface are not finite or outside {low}..{high} (least {least}, most "
            f"{most}; {self.runtime})",
            hint=self._advice(least, most),
        )

    def _advice(self, least: np.float32, most: np.float32) -> str:
        if np.isfinite(least) and np.isfinite(most):
            return f"activation {self.info.activation!r} does not make a probability of it: correct the description"
        if self.runtime.precision != "float32":
            return "run it with precision: float32"
        return "check its weights, and that its normalisation fits the scan"


def predictor_for(info: ModelInfo, runtime: Runtime) -> Predictor:
    """Return the predictor of this process for a model. It is loaded the first time and then kept.

    Parameters
    ----------
    info : ModelInfo
    runtime : Runtime

    Raises
    ------
    ModelError
        The model cannot be loaded or is not the one that was planned, or this machine lacks the runtime's device,
        precision or software.
    """
    with _opening:
        return _open(info, runtime)


@lru_cache(maxsize=_MOST_OPEN)
def _open(info: ModelInfo, runtime: Runtime) -> Predictor:
    require_versions(runtime)
    module = import_module(f"{__name__}.{_MODULES[runtime.device, runtime.backend]}")
    networks = load_networks(info, trust=runtime.trust)
    return Predictor(info, runtime, cast("Run", module.open_network(networks, info, runtime)))

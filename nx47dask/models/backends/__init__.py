"""Running networks: one small interface over torch on CPU and CUDA, OpenVINO and ONNX Runtime.

The libraries load when a network is opened.
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
    Engine,
    engines_here,
    require_versions,
    resolve_backend,
)
from nx47dask.models.base import ModelInfo, load_networks

__all__ = ["Device", "Engine", "Predictor", "engines_here", "predictor_for", "resolve_backend"]

Floats = NDArray[np.float32]
Run = Callable[[Iterable[Floats]], Iterator[Floats]]

_MODULES: dict[tuple[Device, Backend], str] = {
    ("cuda", "torch"): "torch_cuda",
    ("cpu", "torch"): "torch_cpu",
    ("cpu", "openvino"): "openvino_network",
    ("cuda", "onnxruntime"): "onnxruntime_network",
    ("cpu", "onnxruntime"): "onnxruntime_network",
}
_MOST_OPEN = 8  # models that one process keeps: the members of an ensemble
_opening = threading.Lock()


class Predictor:
    """A network that is loaded and ready: batches of windows in, surface probabilities or logits out.

    The answer for a window is the same bits in every call and process and in every place of a batch, on one kind of
    device and with one set of software versions.

    Parameters
    ----------
    info : ModelInfo
    engine : Engine
    network : callable
        What the backend made of the network, without checks.
    """

    def __init__(self, info: ModelInfo, engine: Engine, network: Run) -> None:
        self.info = info
        self.engine = engine
        self._network = network

    def run(self, batches: Iterable[Floats]) -> Iterator[Floats]:
        """Predict batches in order; at most two are held, so the source may be a generator over any volume.

        Parameters
        ----------
        batches : iterable of ndarray of float32, (batch, 1, Z, Y, X)
            Normalised windows of the model's size, as many in each as the engine says. An array may be used again for
            the next batch once that one is asked for.

        Yields
        ------
        ndarray of float32, (batch, Z, Y, X)
            Of the surface class, for each batch an array of its own. Where the model's ``values`` are "probability":
            its probability, in [0, 1]. Where they are "logit": its log-odds; the output itself for a sigmoid, and for
            a softmax the output minus the log-sum-exp of the other classes, which for two classes is the difference.
            Several members are averaged in the same terms.

        Raises
        ------
        ModelError
            The network returns another number of classes or another shape than its description says, values that are
            not finite, or probabilities outside [0, 1].
        """
        for number, surface in enumerate(self._network(map(self._require_batch, batches))):
            self._require_sound(surface, number)
            yield surface

    def _require_batch(self, batch: Floats) -> Floats:
        expected = (self.engine.batch, 1, *self.info.window_zyx)
        if batch.shape != expected or batch.dtype != np.float32:
            raise ModelError(f"{self.info.name}: a batch is {batch.dtype} {batch.shape}; expected float32 {expected}")
        return np.ascontiguousarray(batch)

    def _require_sound(self, surface: Floats, number: int) -> None:
        expected = (self.engine.batch, *self.info.window_zyx)
        if surface.shape != expected:
            raise ModelError(f"{self.info.path}: the answer has the shape {surface.shape}; expected {expected}")
        low, high = (-np.inf, np.inf) if self.info.values == "logit" else (0, 1)
        least, most = surface.min(), surface.max()  # either is NaN where any value is
        if np.isfinite(least) and np.isfinite(most) and low <= least and most <= high:
            return
        bad = ~np.isfinite(surface) | (surface < low) | (surface > high)
        entry = int(bad.any(axis=(1, 2, 3)).argmax())
        raise ModelError(
            f"{self.info.path}: window {number * self.engine.batch + entry} of a block: "
            f"{int(bad[entry].sum())} of {bad[entry].size} values of the surface are not finite or outside "
            f"{low}..{high} (least {least}, most {most}; {self.engine}); {self._advice(least, most)}"
        )

    def _advice(self, least: np.float32, most: np.float32) -> str:
        if np.isfinite(least) and np.isfinite(most):
            return f"activation {self.info.activation!r} does not make a probability of it: correct the description"
        if self.engine.precision != "float32":
            return "run it with precision: float32"
        return "check its weights, and that its normalisation fits the scan"


def predictor_for(info: ModelInfo, engine: Engine) -> Predictor:
    """The predictor of this process for a model: loaded the first time, then kept.

    Parameters
    ----------
    info : ModelInfo
    engine : Engine

    Raises
    ------
    ModelError
        The model cannot be loaded or is not what was planned, or this machine lacks the engine's device, precision or
        software.
    """
    with _opening:
        return _open(info, engine)


@lru_cache(maxsize=_MOST_OPEN)
def _open(info: ModelInfo, engine: Engine) -> Predictor:
    require_versions(engine)
    module = import_module(f"{__name__}.{_MODULES[engine.device, engine.backend]}")
    networks = load_networks(info, trust=engine.trust)
    return Predictor(info, engine, cast("Run", module.open_network(networks, info, engine)))

"""ONNX Runtime, on a CPU or a CUDA device, for ONNX files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import ModelError
from nx47dask.models.backends.onnx_output import require_input, surface_of
from nx47dask.models.backends.runtime import Engine
from nx47dask.models.base import ModelInfo, OnnxNetwork

__all__ = ["open_network"]

Floats = NDArray[np.float32]

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
_EXACT = {"cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}, "cpu": {}}
_ERRORS_ONLY = 3


def open_network(networks: Sequence[OnnxNetwork], info: ModelInfo, engine: Engine) -> Any:
    """The network as a function from batches to surfaces.

    Raises
    ------
    ModelError
        The file cannot be read, takes another input, or the device is not there.
    """
    import onnxruntime

    errors = onnxruntime.capi.onnxruntime_pybind11_state
    failures = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented)
    wanted = _PROVIDERS[engine.device]
    try:
        session = onnxruntime.InferenceSession(
            networks[0].path, _options(onnxruntime, engine), providers=[(wanted, _EXACT[engine.device])]
        )
    except (RuntimeError, *failures) as error:
        raise ModelError(f"{info.path}: ONNX Runtime cannot open it ({error})") from error
    if session.get_providers()[0] != wanted:
        raise ModelError(f"{engine}: ONNX Runtime has no {wanted} here, only {session.get_providers()}")
    (given,) = session.get_inputs()
    require_input(info, given.shape, given.type, engine.batch)

    def predict(batch: Floats) -> Floats:
        try:
            (output,) = session.run(None, {given.name: batch})
        except failures as error:
            raise ModelError(f"{info.path}: ONNX Runtime cannot run it ({error}); check window_zyx") from error
        return surface_of(output, info)

    def run(batches: Iterable[Floats]) -> Iterator[Floats]:
        return map(predict, batches)

    return run


def _options(onnxruntime: Any, engine: Engine) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = engine.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other workers want the cores
    return options

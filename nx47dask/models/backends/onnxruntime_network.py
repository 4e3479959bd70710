"""ONNX files on ONNX Runtime, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import ModelError
from nx47dask.models.backends.onnx_output import require_input, surface_of
from nx47dask.models.backends.runtime import Runtime
from nx47dask.models.base import ModelInfo, OnnxNetwork

__all__ = ["open_network"]

Floats = NDArray[np.float32]

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
_EXACT = {"cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}, "cpu": {}}
_ERRORS_ONLY = 3


def open_network(networks: Sequence[OnnxNetwork], info: ModelInfo, runtime: Runtime) -> Any:
    """Open the network as a function from batches to surfaces.

    Raises
    ------
    ModelError
        The file cannot be read or takes another input, or there is no such device.
    """
    import onnxruntime

    errors = onnxruntime.capi.onnxruntime_pybind11_state
    failures = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented)
    wanted = _PROVIDERS[runtime.device]
    try:
        session = onnxruntime.InferenceSession(
            networks[0].path, _options(onnxruntime, runtime), providers=[(wanted, _EXACT[runtime.device])]
        )
    except (RuntimeError, *failures) as error:
        raise ModelError(f"{info.path}: ONNX Runtime cannot open it ({error})") from error
    if session.get_providers()[0] != wanted:
        raise ModelError(f"{runtime}: ONNX Runtime has no {wanted} here, only {session.get_providers()}")
    (given,) = session.get_inputs()
    require_input(info, given.shape, given.type, runtime.batch)

    def predict(batch: Floats) -> Floats:
        try:
            (output,) = session.run(None, {given.name: batch})
        except failures as error:
            raise ModelError(f"{info.path}: ONNX Runtime cannot run it ({error})", hint="check window_zyx") from error
        return surface_of(output, info)

    def run(batches: Iterable[Floats]) -> Iterator[Floats]:
        return map(predict, batches)

    return run


def _options(onnxruntime: Any, runtime: Runtime) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are shared with other workers
    return options

"""Networks on OpenVINO on a CPU, each compiled as one graph with what follows it, once in each process."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import ModelError
from nx47dask.kernels.torch_threads import torch_threads
from nx47dask.models.backends.onnx_output import require_input, surface_of
from nx47dask.models.backends.runtime import Runtime
from nx47dask.models.base import ModelInfo, OnnxNetwork

if TYPE_CHECKING:
    from torch import nn

__all__ = ["open_network"]

Floats = NDArray[np.float32]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def open_network(networks: Sequence[nn.Module | OnnxNetwork], info: ModelInfo, runtime: Runtime) -> Any:
    """Open the network as a function from batches to surfaces.

    Raises
    ------
    ModelError
        OpenVINO cannot convert the network, or this CPU has no bfloat16.
    """
    openvino = _openvino()
    core = openvino.Core()
    if runtime.precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        # OpenVINO would compute in float32 without a warning.
        raise ModelError(f"{runtime}: this CPU has no bfloat16 (AVX-512 or AMX)", hint="set precision: float32")
    read = _onnx_model if isinstance(networks[0], OnnxNetwork) else _torch_model
    try:
        model = read(openvino, core, networks, info, runtime)
        compiled = core.compile_model(model, "CPU", _settings(runtime))
    except (RuntimeError, openvino.frontend.OpConversionFailure) as error:
        backend = "onnxruntime" if info.format == "onnx" else "torch"
        raise ModelError(f"{info.path}: OpenVINO cannot run it ({error})", hint=f"set backend: {backend}") from error
    predict = _predict_onnx(info) if info.format == "onnx" else _predict(openvino, compiled.output(0).shape)

    def run(batches: Iterable[Floats]) -> Iterator[Floats]:
        request = compiled.create_infer_request()  # a new one: a request serves one caller at a time
        for batch in batches:
            request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
            yield predict(request)

    return run


def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which would report every import and conversion over the network."""
    name = "openvino_telemetry"
    if "openvino" not in sys.modules and name not in sys.modules:
        sys.modules[name] = None  # type: ignore[assignment]  # to Python: not installed
        try:
            import openvino
        finally:
            del sys.modules[name]
    import openvino

    return openvino


def _settings(runtime: Runtime) -> dict[str, Any]:
    exact = runtime.precision == "float32"
    return {
        "INFERENCE_NUM_THREADS": runtime.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": _HINTS[runtime.precision],
        "EXECUTION_MODE_HINT": "ACCURACY" if exact else "PERFORMANCE",
        "ENABLE_CPU_PINNING": False,  # would pin all workers of a machine to its first core
    }


def _predict(openvino: Any, shape: Sequence[int]) -> Callable[[Any], Floats]:
    def predict(request: Any) -> Floats:
        surface = np.empty(tuple(shape), np.float32)
        request.set_output_tensor(openvino.Tensor(surface, shared_memory=True))
        request.infer()
        return surface

    return predict


def _predict_onnx(info: ModelInfo) -> Callable[[Any], Floats]:
    def predict(request: Any) -> Floats:
        request.infer()
        return surface_of(request.get_output_tensor(0).data, info)

    return predict


def _onnx_model(openvino: Any, core: Any, networks: Sequence[Any], info: ModelInfo, runtime: Runtime) -> Any:
    del openvino
    model = core.read_model(networks[0].path)
    (given,) = model.inputs
    shape = given.get_partial_shape()
    edges = [edge.get_length() if edge.is_static else None for edge in shape] if shape.rank.is_static else []
    require_input(info, edges, given.get_element_type().get_type_name(), runtime.batch)
    model.reshape([runtime.batch, 1, *info.window_zyx])
    return model


def _torch_model(openvino: Any, core: Any, networks: Sequence[Any], info: ModelInfo, runtime: Runtime) -> Any:
    import torch

    from nx47dask.models.backends.surface import SurfaceNetwork, failures_named

    del core
    shape = (runtime.batch, 1, *info.window_zyx)
    example = torch.zeros(shape)
    with torch_threads(runtime.threads), torch.no_grad(), warnings.catch_warnings(), failures_named(info):
        warnings.simplefilter("ignore")  # they say that shapes become fixed, which is wanted
        traced = torch.jit.trace(SurfaceNetwork(networks, info), example, check_trace=False)
        frozen = torch.jit.freeze(traced, optimize_numerics=False)  # OpenVINO reads no attributes of TorchScript files
    return openvino.convert_model(frozen, example_input=example, input=[list(shape)])

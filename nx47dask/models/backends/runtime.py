"""What runs a network: device, backend and precision, decided once, when a run is planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

from nx47dask.errors import ModelError
from nx47dask.models.base import ModelInfo

__all__ = ["Backend", "Device", "Engine", "Precision", "engines_here", "require_versions", "resolve_backend"]

Device = Literal["cpu", "cuda"]
Backend = Literal["openvino", "torch", "onnxruntime"]
Precision = Literal["float32", "bfloat16", "float16"]

# The first that is there is what "auto" takes. OpenVINO is several times as fast as plain torch on a CPU.
_PRECISIONS: dict[tuple[Device, Backend], tuple[Precision, ...]] = {
    ("cuda", "torch"): ("float32", "bfloat16", "float16"),
    ("cuda", "onnxruntime"): ("float32",),
    ("cpu", "openvino"): ("float32", "bfloat16"),
    ("cpu", "torch"): ("float32", "bfloat16"),
    ("cpu", "onnxruntime"): ("float32",),
}


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs a network; small and picklable. The same engine on the same kind of device gives the same bits.

    Attributes
    ----------
    device : {"cpu", "cuda"}
    backend : {"openvino", "torch", "onnxruntime"}
    precision : {"float32", "bfloat16", "float16"}
        Of the network's layers; its output is taken to float32 before anything else.
    batch : int
        Windows that the network takes at once, always as many.
    threads : int
        Of a CPU; the way sums are split among them can show in the last bit.
    compile : bool
        Whether ``torch.compile`` is used.
    versions : tuple of (package, version)
        Of what computes, without local parts such as ``+cu128``.
    trust : bool
        Whether the model's pickles and code may be loaded.
    """

    device: Device
    backend: Backend
    precision: Precision
    batch: int
    threads: int
    compile: bool
    versions: tuple[tuple[str, str], ...]
    trust: bool = False

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.device == "cpu" and self.threads > 1 else ""
        compiled = ", compiled" if self.compile else ""
        return f"{self.backend} on {self.device}, {self.precision}, batches of {self.batch}{threads}{compiled}"

    def to_json(self) -> dict[str, Any]:
        """What decides the result, as plain data, for the plan and the manifest."""
        fields = dataclasses.asdict(self) | {"versions": dict(self.versions)}
        del fields["trust"]
        return fields


def resolve_backend(
    info: ModelInfo,
    *,
    device: Device | Literal["auto"] = "auto",
    backend: Backend | Literal["auto"] = "auto",
    precision: Precision = "float32",
    batch: int = 1,
    threads: int = 1,
    compile: bool = False,
    trust: bool = False,
) -> Engine:
    """Decide what runs a model.

    Parameters
    ----------
    info : ModelInfo
    device : {"auto", "cpu", "cuda"}
        "auto" is CUDA where this machine has it. "cuda" is taken at its word: the machine that plans need not have it.
    backend : {"auto", "openvino", "torch", "onnxruntime"}
        "auto" on a CPU is OpenVINO when it is installed; ONNX files run on OpenVINO or ONNX Runtime only.
    precision : {"float32", "bfloat16", "float16"}
        float16 is for CUDA; bfloat16 on a CPU needs AVX-512 or AMX, which the worker checks.
    batch, threads : int
        At least 1.
    compile, trust : bool
        See `Engine`.

    Raises
    ------
    ModelError
        The combination does not exist, or what it needs is not installed; or log-odds are to be averaged of a network
        whose output is a probability.
    """
    if (info.activation, info.values) == ("none", "logit"):
        raise ModelError(f"{info.name}: its output is a probability already (activation none): set values: probability")
    wanted = f"device {device}, backend {backend}, precision {precision}, compile {str(compile).lower()}"
    possible = [
        (one, other)
        for one, other in _combinations(info)
        if device in ("auto", one)
        and backend in ("auto", other)
        and precision in _PRECISIONS[one, other]
        and (other == "torch" or not compile)
    ]
    if not possible:
        raise ModelError(f"{info.name} ({info.format}): nothing runs it with {wanted}; possible are {_choices(info)}")
    for one, other in possible:
        packages = _packages(info, other)
        if _installed(packages) and (one == device or _is_here(one, other)):
            return Engine(one, other, precision, batch, threads, compile, _versions(packages), trust)
    needed = " or ".join(f"{' and '.join(_packages(info, other))} on {one}" for one, other in possible)
    raise ModelError(f"{info.name} ({info.format}): {wanted} needs {needed}, which is not here")


def engines_here(info: ModelInfo, *, trust: bool = False) -> Iterator[Engine]:
    """Every way to run a model that is installed on this machine, one window at a time.

    A CPU may still turn out to lack a precision when it is tried.
    """
    for device, backend in _combinations(info):
        packages = _packages(info, backend)
        if _installed(packages) and _is_here(device, backend):
            for precision in _PRECISIONS[device, backend]:
                yield Engine(device, backend, precision, 1, 1, False, _versions(packages), trust)


def require_versions(engine: Engine) -> None:
    """Refuse to run with other software than was planned, or with none.

    Raises
    ------
    ModelError
        With both versions.
    """
    for package, planned in engine.versions:
        found = _version(package)
        if found != planned:
            raise ModelError(
                f"{package} {planned} was planned, this worker has {found or 'none'}; other versions give other bits: "
                "install the same packages on all workers, or start again where they are the same"
            )


def _combinations(info: ModelInfo) -> list[tuple[Device, Backend]]:
    other: Backend = "torch" if info.format == "onnx" else "onnxruntime"
    return [(device, backend) for device, backend in _PRECISIONS if backend != other]


def _choices(info: ModelInfo) -> str:
    pairs = _combinations(info)
    return "; ".join(f"{device} {backend} ({', '.join(_PRECISIONS[device, backend])})" for device, backend in pairs)


def _packages(info: ModelInfo, backend: Backend) -> tuple[str, ...]:
    """What must be installed; OpenVINO reads ONNX files itself, and other networks from torch."""
    return (backend, "torch") if backend == "openvino" and info.format != "onnx" else (backend,)


def _installed(packages: tuple[str, ...]) -> bool:
    return all(find_spec(package) is not None for package in packages)


def _is_here(device: Device, backend: Backend) -> bool:
    """Whether an installed backend finds the device."""
    if device == "cpu":
        return True
    if backend == "onnxruntime":
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    import torch

    return torch.cuda.is_available()


def _versions(packages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = ((package, _version(package)) for package in packages)
    # onnxruntime-gpu and the like are packages of another name: nothing to hold a worker to.
    return tuple((package, number) for package, number in found if number is not None)


def _version(package: str) -> str | None:
    """Public part of a version: builds for different devices are the same release."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None

"""Runtime of a network: device, backend and precision, decided once, when a run is planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

from nx47dask.errors import ModelError
from nx47dask.models.base import ModelInfo

__all__ = ["Backend", "Device", "Precision", "Runtime", "require_versions", "resolve_backend", "runtimes_here"]

Device = Literal["cpu", "cuda"]
Backend = Literal["openvino", "torch", "onnxruntime"]
Precision = Literal["float32", "bfloat16", "float16"]

# "auto" takes the first that is available. OpenVINO is several times as fast as plain torch on a CPU.
_PRECISIONS: dict[tuple[Device, Backend], tuple[Precision, ...]] = {
    ("cuda", "torch"): ("float32", "bfloat16", "float16"),
    ("cuda", "onnxruntime"): ("float32",),
    ("cpu", "openvino"): ("float32", "bfloat16"),
    ("cpu", "torch"): ("float32", "bfloat16"),
    ("cpu", "onnxruntime"): ("float32",),
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Device, library and precision that run a network; small and picklable.

    The same runtime on the same kind of device gives the same bits.

    Attributes
    ----------
    device : {"cpu", "cuda"}
    backend : {"openvino", "torch", "onnxruntime"}
    precision : {"float32", "bfloat16", "float16"}
        Number format of the network's layers; its output is converted to float32 first of all.
    batch : int
        Windows that the network takes at once; every batch has this size.
    threads : int
        Threads of a CPU. Their number can change the last bit, because sums are split among them.
    compile : bool
        Use ``torch.compile``.
    versions : tuple of (package, version)
        Versions of the libraries that compute, without local parts such as ``+cu128``.
    trust : bool
        Allow loading the model's pickles and code.
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
        """Return the fields that decide the result as plain data, for the plan and the manifest."""
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
) -> Runtime:
    """Choose the runtime of a model.

    Parameters
    ----------
    info : ModelInfo
    device : {"auto", "cpu", "cuda"}
        "auto" is CUDA where this machine has it. "cuda" is not checked: the machine that plans need not have it.
    backend : {"auto", "openvino", "torch", "onnxruntime"}
        "auto" on a CPU is OpenVINO when it is installed. ONNX files run on OpenVINO or ONNX Runtime only.
    precision : {"float32", "bfloat16", "float16"}
        float16 is for CUDA; bfloat16 on a CPU needs AVX-512 or AMX, which the worker checks.
    batch, threads : int
        At least 1.
    compile, trust : bool
        See `Runtime`.

    Raises
    ------
    ModelError
        The combination does not exist, or what it needs is not installed, or log-odds should be averaged of a network
        whose output is a probability.
    """
    if (info.activation, info.values) == ("none", "logit"):
        raise ModelError(f"{info.name}: its output is a probability already (activation none): set values: probability")
    wanted = f"device {device}, backend {backend}, precision {precision}, compile {str(compile).lower()}"
    possible = [
        (place, library)
        for place, library in _combinations(info)
        if device in ("auto", place)
        and backend in ("auto", library)
        and precision in _PRECISIONS[place, library]
        and (library == "torch" or not compile)
    ]
    if not possible:
        raise ModelError(f"{info.name} ({info.format}): nothing runs it with {wanted}; possible are {_choices(info)}")
    for place, library in possible:
        packages = _packages(info, library)
        if _installed(packages) and (place == device or _is_here(place, library)):
            return Runtime(place, library, precision, batch, threads, compile, _versions(packages), trust)
    needed = " or ".join(f"{' and '.join(_packages(info, library))} on {place}" for place, library in possible)
    raise ModelError(f"{info.name} ({info.format}): {wanted} needs {needed}, which is not here")


def runtimes_here(info: ModelInfo, *, trust: bool = False) -> Iterator[Runtime]:
    """Yield every runtime of a model that is installed on this machine, with batches of one window.

    A CPU can still lack a precision; only trying shows it.
    """
    for device, backend in _combinations(info):
        packages = _packages(info, backend)
        if _installed(packages) and _is_here(device, backend):
            for precision in _PRECISIONS[device, backend]:
                yield Runtime(device, backend, precision, 1, 1, False, _versions(packages), trust)


def require_versions(runtime: Runtime) -> None:
    """Refuse to run with another version of a library than was planned, or without it.

    Raises
    ------
    ModelError
        A version differs; the message gives both.
    """
    for package, planned in runtime.versions:
        installed = _version(package)
        if installed != planned:
            raise ModelError(
                f"{package} {planned} was planned, this worker has {installed or 'none'}; "
                "other versions give other bits",
                hint="install the same packages on all workers, or start again where they are the same",
            )


def _combinations(info: ModelInfo) -> list[tuple[Device, Backend]]:
    excluded: Backend = "torch" if info.format == "onnx" else "onnxruntime"
    return [(device, backend) for device, backend in _PRECISIONS if backend != excluded]


def _choices(info: ModelInfo) -> str:
    pairs = _combinations(info)
    return "; ".join(f"{device} {backend} ({', '.join(_PRECISIONS[device, backend])})" for device, backend in pairs)


def _packages(info: ModelInfo, backend: Backend) -> tuple[str, ...]:
    """List the packages that a backend needs; OpenVINO reads ONNX files itself, other networks through torch."""
    return (backend, "torch") if backend == "openvino" and info.format != "onnx" else (backend,)


def _installed(packages: tuple[str, ...]) -> bool:
    return all(find_spec(package) is not None for package in packages)


def _is_here(device: Device, backend: Backend) -> bool:
    """Return True where an installed backend finds the device."""
    if device == "cpu":
        return True
    if backend == "onnxruntime":
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    import torch

    return torch.cuda.is_available()


def _versions(packages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    versions = ((package, _version(package)) for package in packages)
    # Builds under another package name, such as onnxruntime-gpu, have no version here: workers are not checked for it.
    return tuple((package, number) for package, number in versions if number is not None)


def _version(package: str) -> str | None:
    """Return the public part of a version, which builds for different devices share; None if not installed."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None

"""Try a model with one window on every runtime of this machine: does it work, how fast, in how much memory?"""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import ModelError, Nx47Error
from nx47dask.models.backends import Runtime, predictor_for, resolve_backend, runtimes_here
from nx47dask.models.backends.runtime import Device, Precision
from nx47dask.models.base import ModelInfo

__all__ = ["Trial", "check_model"]

_TIMED_RUNS = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of trying one runtime, in a process of its own.

    Attributes
    ----------
    runtime : Runtime
    failure : str or None
        Reason why it does not work here; the other fields then keep their defaults.
    open_s : float
        Time to load the network and run the first window.
    window_s : float
        Time of a later window, the faster of two.
    peak_bytes : int
        Peak resident memory of the process, with libraries and weights.
    device_peak_bytes : int or None
        Peak memory of the CUDA device that torch held; None for anything but torch on CUDA.
    repeatable : bool
        True if the window gave the same bits each time.
    least, most : float
        Range of the answer, a probability or log-odds.
    largest_difference : float
        Largest difference from the answer of the first runtime that works, in the same units.
    """

    runtime: Runtime
    failure: str | None = None
    open_s: float = 0.0
    window_s: float = 0.0
    peak_bytes: int = 0
    device_peak_bytes: int | None = None
    repeatable: bool = False
    least: float = 0.0
    most: float = 0.0
    largest_difference: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data; for a runtime that does not work only the reason."""
        runtime = {"engine": self.runtime.to_json()}  # the key in JSON
        if self.failure is not None:
            return runtime | {"failure": self.failure}
        measured = dataclasses.asdict(self)
        del measured["runtime"], measured["failure"]
        return runtime | measured


def check_model(
    info: ModelInfo,
    *,
    peak_bytes: Callable[[], int],
    device: Device | None = None,
    precision: Precision | None = None,
    trust: bool = False,
) -> list[Trial]:
    """Run one window of noise on every installed device, backend and precision, with one thread of a CPU.

    Parameters
    ----------
    info : ModelInfo
    peak_bytes : callable
        Function that returns the peak resident memory of its process, in bytes. It must be a function of a module, so
        that it can be pickled.
    device, precision : str, optional
        Try only this device or precision.
    trust : bool
        Load pickles and code that the model names.

    Returns
    -------
    list of Trial
        One trial for each runtime.

    Raises
    ------
    ModelError
        The model works on none of them; the message gives the reason of the first.
    """
    runtimes = [
        runtime
        for runtime in runtimes_here(info, trust=trust)
        if device in (None, runtime.device) and precision in (None, runtime.precision)
    ]
    if not runtimes:
        runtimes = [resolve_backend(info, device=device or "auto", precision=precision or "float32", trust=trust)]
    trials: list[Trial] = []
    reference: NDArray[np.float32] | None = None
    for runtime in runtimes:
        trial, surface = _in_own_process(info, runtime, peak_bytes, reference)
        trials.append(trial)
        reference = surface if reference is None else reference
    if reference is None:
        raise ModelError(next(trial.failure for trial in trials if trial.failure))
    return trials


def _in_own_process(
    info: ModelInfo, runtime: Runtime, peak_bytes: Callable[[], int], reference: NDArray[np.float32] | None
) -> tuple[Trial, NDArray[np.float32] | None]:
    """Try a runtime in a new process, so that its memory is measured alone and a crash loses only this trial."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, info, runtime, peak_bytes, reference).result()
        except Nx47Error as error:
            return Trial(runtime, str(error)), None
        except BrokenProcessPool:
            return Trial(runtime, f"{info.path}: the process died ({runtime}); is there enough memory?"), None


def _measure(
    info: ModelInfo, runtime: Runtime, peak_bytes: Callable[[], int], reference: NDArray[np.float32] | None
) -> tuple[Trial, NDArray[np.float32]]:
    batch = np.random.default_rng(0).standard_normal((runtime.batch, 1, *info.window_zyx), dtype=np.float32)
    begin = time.perf_counter()
    predictor = predictor_for(info, runtime)
    (surface,) = predictor.run([batch])
    ends = [time.perf_counter()]
    repeatable = True
    for _ in range(_TIMED_RUNS):
        (again,) = predictor.run([batch])
        ends.append(time.perf_counter())
        repeatable &= again.tobytes() == surface.tobytes()
    trial = Trial(
        runtime,
        open_s=ends[0] - begin,
        window_s=float(min(np.diff(ends))),
        peak_bytes=peak_bytes(),
        device_peak_bytes=_device_peak_bytes(runtime),
        repeatable=repeatable,
        least=float(surface.min()),
        most=float(surface.max()),
        largest_difference=0.0 if reference is None else float(np.abs(surface - reference).max()),
    )
    return trial, surface


def _device_peak_bytes(runtime: Runtime) -> int | None:
    if (runtime.device, runtime.backend) != ("cuda", "torch"):
        return None
    import torch

    return torch.cuda.max_memory_allocated()

"""One window through every engine of this machine: does a model work here, how fast, in how much memory."""

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
from nx47dask.models.backends import Engine, engines_here, predictor_for, resolve_backend
from nx47dask.models.backends.runtime import Device, Precision
from nx47dask.models.base import ModelInfo

__all__ = ["Trial", "check_model"]

_TIMED_RUNS = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """One engine, tried in a process of its own.

    Attributes
    ----------
    engine : Engine
    failure : str or None
        Why it does not work here; the rest is empty then.
    open_s : float
        Loading the network and the first window.
    window_s : float
        One window afterwards, the faster of two.
    peak_bytes : int
        Most resident memory of the process, libraries and weights included.
    device_peak_bytes : int or None
        Most memory of the CUDA device that torch held.
    repeatable : bool
        Whether the window gave the same bits each time.
    least, most : float
        Of the answer, a probability or log-odds.
    largest_difference : float
        From the answer of the first engine that works, in the same units.
    """

    engine: Engine
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
        """Plain data; of an engine that does not work, why."""
        engine = {"engine": self.engine.to_json()}
        if self.failure is not None:
            return engine | {"failure": self.failure}
        measured = dataclasses.asdict(self) | engine
        del measured["failure"]
        return measured


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
        Most resident memory of the process that calls it, in bytes; a function of a module.
    device, precision : str, optional
        Only this one.
    trust : bool
        Load pickles and code that the model names.

    Returns
    -------
    list of Trial
        One an engine.

    Raises
    ------
    ModelError
        The model works on none of them: the reason of the first.
    """
    engines = [
        engine
        for engine in engines_here(info, trust=trust)
        if device in (None, engine.device) and precision in (None, engine.precision)
    ]
    if not engines:
        engines = [resolve_backend(info, device=device or "auto", precision=precision or "float32", trust=trust)]
    trials: list[Trial] = []
    reference: NDArray[np.float32] | None = None
    for engine in engines:
        trial, surface = _in_own_process(info, engine, peak_bytes, reference)
        trials.append(trial)
        reference = surface if reference is None else reference
    if reference is None:
        raise ModelError(trials[0].failure)
    return trials


def _in_own_process(
    info: ModelInfo, engine: Engine, peak_bytes: Callable[[], int], reference: NDArray[np.float32] | None
) -> tuple[Trial, NDArray[np.float32] | None]:
    """So that the memory is this engine's alone, and a crash costs no more than its row."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, info, engine, peak_bytes, reference).result()
        except Nx47Error as error:
            return Trial(engine, str(error)), None
        except BrokenProcessPool:
            return Trial(engine, f"{info.path}: the process died of it ({engine}); is there enough memory?"), None


def _measure(
    info: ModelInfo, engine: Engine, peak_bytes: Callable[[], int], reference: NDArray[np.float32] | None
) -> tuple[Trial, NDArray[np.float32]]:
    batch = np.random.default_rng(0).standard_normal((engine.batch, 1, *info.window_zyx), dtype=np.float32)
    begin = time.perf_counter()
    predictor = predictor_for(info, engine)
    (surface,) = predictor.run([batch])
    ends = [time.perf_counter()]
    repeatable = True
    for _ in range(_TIMED_RUNS):
        (again,) = predictor.run([batch])
        ends.append(time.perf_counter())
        repeatable &= again.tobytes() == surface.tobytes()
    trial = Trial(
        engine,
        open_s=ends[0] - begin,
        window_s=float(min(np.diff(ends))),
        peak_bytes=peak_bytes(),
        device_peak_bytes=_device_peak_bytes(engine),
        repeatable=repeatable,
        least=float(surface.min()),
        most=float(surface.max()),
        largest_difference=0.0 if reference is None else float(np.abs(surface - reference).max()),
    )
    return trial, surface


def _device_peak_bytes(engine: Engine) -> int | None:
    if (engine.device, engine.backend) != ("cuda", "torch"):
        return None
    import torch

    return torch.cuda.max_memory_allocated()

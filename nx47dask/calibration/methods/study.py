"""Decide the order in which candidates are tried: a list, such as a grid, or the TPE of Optuna.

The candidates that a study asks for depend only on its space, its seed and the values that it was told. After a kill
it starts again and asks for the same candidates, whose scores are known. Every question and answer is written at once
to a journal file, which ``optuna-dashboard`` can open.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from scipy.stats import qmc

from nx47dask.calibration.methods.space import Candidate, SearchSpace
from nx47dask.errors import InputError
from nx47dask.steps.dimensions import Choices, Dimension

__all__ = ["Study", "Trial", "open_study"]


@dataclass(frozen=True)
class Trial:
    """Candidate that a study asks for.

    Attributes
    ----------
    number : int
        Number from 0, in the order of asking.
    candidate : dict of str to Any
        The candidate, repaired.
    """

    number: int
    candidate: Candidate


class Study(Protocol):
    """Source of candidates that is told their values; larger is better."""

    def ask(self, count: int) -> list[Trial]:
        """Return at most ``count`` next candidates, none at the end; they depend on the values told before."""

    def tell(self, trial: Trial, value: float | None) -> None:
        """Tell the finite value of a trial; None if it was pruned."""


def open_study(
    space: SearchSpace,
    first: Mapping[str, Any],
    *,
    storage: Path | None,
    name: str,
    seed: int = 0,
    startup: int = 32,
    trials: int = 256,
    candidates: Iterable[Candidate] | None = None,
) -> Study:
    """Start a study.

    The first trial is ``first``. With ``candidates``, such as the points of a grid, the others are these in order.
    Without, TPE asks for ``startup - 1`` points of a scrambled Sobol sequence, the same ones in the studies of every
    name, and then samples (Bergstra et al., "Algorithms for hyper-parameter optimization", 2011; Optuna's multivariate
    sampler, trials under way counted as bad). Each trial has a sampler of its own, seeded by ``seed`` and its number:
    the same answers lead to the same questions.

    Parameters
    ----------
    space : SearchSpace
    first : mapping of str to Any
        Candidate to try first, with all keys of the space; its values need not lie in the space.
    storage : Path or None
        Journal file for ``optuna-dashboard``, which several studies share; None writes no file.
    name : str
        Name of the study; it must not be in the storage yet.
    seed : int
        At least 0.
    startup, trials : int
        Number of trials before TPE samples, and of all its trials.
    candidates : iterable of candidates, optional
        Candidates to try after the first; those with the same masks as it are left out.

    Raises
    ------
    InputError
        Optuna is not installed.
    """
    optuna = _optuna()
    if candidates is None:
        planned = _startup(space, dict(first), seed, min(startup, trials))
    else:
        planned = [
            dict(first),
            *(candidate for candidate in candidates if space.identity(candidate) != space.identity(first)),
        ]
        trials = len(planned)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        journal = None
        if storage is not None:
            journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(storage)))
        shown = optuna.create_study(study_name=name, storage=journal, direction="maximize")
    return _OptunaStudy(optuna, shown, space, planned, seed, trials)


class _OptunaStudy:
    def __init__(
        self, optuna: ModuleType, shown: Any, space: SearchSpace, planned: list[Candidate], seed: int, trials: int
    ) -> None:
        self.optuna, self.shown, self.space = optuna, shown, space
        self.planned, self.seed, self.trials = planned, seed, trials
        # A study in memory samples; the shown study gets each trial with its repaired candidate.
        self.memory = optuna.create_study(direction="maximize")
        self.asked = 0
        self.distributions = {
            key: _distribution(optuna, dimension) for key, dimension in space.dimensions.items() if dimension.size != 1
        }

    def ask(self, count: int) -> list[Trial]:
        first, self.asked = self.asked, min(self.asked + count, self.trials)
        return [self._ask(number) for number in range(first, self.asked)]

    def tell(self, trial: Trial, value: float | None) -> None:
        if value is not None and not math.isfinite(value):
            raise InputError(f"trial {trial.number} has the value {value}: expected a finite number, or None if pruned")
        state = self.optuna.trial.TrialState.PRUNED if value is None else None
        for study in (self.shown, self.memory):
            study.tell(trial.number, value, state=state)

    def _ask(self, number: int) -> Trial:
        if number < len(self.planned):
            candidate = self.planned[number]
            values = {key: _encoded(self.space.dimensions[key], candidate[key]) for key in self.distributions}
        else:
            values = self._sample(number)
            decoded = {
                key: _decoded(dimension, values[key]) if key in values else dimension.at(0)
                for key, dimension in self.space.dimensions.items()
            }
            candidate = self.space.repair(decoded)
        trial = self.optuna.trial.create_trial(
            state=self.optuna.trial.TrialState.RUNNING,
            params=values,
            distributions=self.distributions,
            user_attrs={"candidate": candidate},
        )
        self.shown.add_trial(trial)
        if number < len(self.planned):
            self.memory.add_trial(trial)
        return Trial(number, candidate)

    def _sample(self, number: int) -> dict[str, Any]:
        """Sample values by TPE from all earlier trials."""
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            self.memory.sampler = self.optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=0
            )
        return dict(self.memory.ask(self.distributions).params)


def _startup(space: SearchSpace, first: Candidate, seed: int, count: int) -> list[Candidate]:
    """Return the first candidate and ``count - 1`` others that cover the space evenly."""
    if count <= 1:
        return [first]
    sobol = qmc.Sobol(len(space.dimensions), rng=np.random.default_rng(np.random.SeedSequence(seed)))
    points = sobol.random_base2(math.ceil(math.log2(count)))  # a prefix does not depend on the count
    return [first, *(space.at(point) for point in points[: count - 1])]


def _distribution(optuna: ModuleType, dimension: Dimension) -> Any:
    """Return a dimension as a distribution of Optuna; choices become JSON text, as they may be of any type."""
    if isinstance(dimension, Choices):
        return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in dimension.values])
    high = dimension.at(1)  # on a step
    if dimension.integer:
        step = 1 if dimension.step is None else int(dimension.step)
        return optuna.distributions.IntDistribution(int(dimension.low), high, log=dimension.log, step=step)
    return optuna.distributions.FloatDistribution(dimension.low, high, log=dimension.log, step=dimension.step)


def _encoded(dimension: Dimension, value: Any) -> Any:
    nearest = dimension.nearest(value)
    return json.dumps(nearest) if isinstance(dimension, Choices) else nearest


def _decoded(dimension: Dimension, value: Any) -> Any:
    return json.loads(value) if isinstance(dimension, Choices) else dimension.nearest(value)


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            f'calibration needs {error.name}, which is not installed: pip install "nx47dask[calibrate]"'
        ) from error
    return optuna

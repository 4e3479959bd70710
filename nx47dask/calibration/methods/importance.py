"""Measure how far the score depends on each key of a space: Sobol indices of a surrogate fitted to the trials."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.stats import qmc

from nx47dask.calibration.methods.space import Candidate, SearchSpace, split_key
from nx47dask.errors import InputError
from nx47dask.steps import STEPS
from nx47dask.steps.dimensions import Choices

__all__ = ["GROUPS", "Group", "Importance", "group_of", "importances", "one_at_a_time", "saltelli"]

Group = Literal["quantile", "fusion", "post-processing"]
GROUPS: tuple[Group, ...] = ("quantile", "fusion", "post-processing")

LEAST_TRIALS = 20
MOST_TRIALS = 300
LENGTHS = (0.1, 100.0)
"""Bounds of the length scale of a key, in shares of its range."""
POINTS = 1024
"""Number of points in each matrix of the Sobol indices; a power of 2."""
PAIRED_KEYS = 5
"""Number of keys with the largest interactions, all pairs of which are measured."""
Surrogate = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Importance:
    """Shares of the variance of a value over the search space; every key varies evenly and independently.

    Attributes
    ----------
    names : tuple of str
        Keys of the space.
    first : dict of str to float
        First-order index per key, in [0, 1]: the share that the key explains by itself.
    total : dict of str to float
        Total index per key: the share that would go if the key were fixed.
    interaction : dict of str to float
        total - first, at least 0: the share that the key has a part in together with others.
    pairs : tuple of (str, str, float)
        Second-order index of pairs of the keys that interact most, the largest first.
    group_first, group_total : dict of str to float
        The same indices of all keys of a group together; interactions within a group belong to it. Groups without a
        key are left out.
    r2 : float or None
        Leave-one-out R2 of the surrogate, at most 1; indices of a bad surrogate mean little.
    trials : int
        Number of different candidates with a value.
    reason : str or None
        Reason for missing indices.
    """

    names: tuple[str, ...]
    first: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)
    interaction: dict[str, float] = field(default_factory=dict)
    pairs: tuple[tuple[str, str, float], ...] = ()
    group_first: dict[str, float] = field(default_factory=dict)
    group_total: dict[str, float] = field(default_factory=dict)
    r2: float | None = None
    trials: int = 0
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the values as in JSON."""
        return asdict(self)


def group_of(key: str) -> Group:
    """Return the group of a key: thresholds, fusion of sources, or everything after."""
    section, name, _ = split_key(key)
    if section != "postprocess":
        return "fusion"
    return "quantile" if STEPS[name.partition("#")[0]].makes_mask() else "post-processing"


def importances(
    candidates: Sequence[Mapping[str, Any]], values: NDArray[np.float64], space: SearchSpace, seed: int = 0
) -> Importance:
    """Measure the variance-based importance of the keys of a space.

    A Gaussian process (Matern 5/2, a length per key; Rasmussen and Williams, "Gaussian processes for machine
    learning", 2006) is fitted to the trials; choices are numbered in their order. Its first-order and total Sobol
    indices are estimated as by Saltelli et al., "Variance based sensitivity analysis of model output", 2010, from
    points of a Sobol sequence over the whole space, repaired as candidates are.

    TPE tries mostly candidates that are near good ones. A random forest takes the common values of those trials for a
    cause; a Gaussian process does not, and still gets better with them. The evaluators of Optuna give one share per
    key, without interactions: for a product of two keys and 1,024 trials, fANOVA gives 0.93 and 0.07, and PED-ANOVA
    gives 0.99 to one of two choices of equal effect.

    Parameters
    ----------
    candidates : sequence of mapping, length N
        With all keys of the space.
    values : ndarray of float, shape (N,)
        Values of the candidates. Those that are not finite are left out, and all after the first 300, since the
        earliest trials cover the space best.
    space : SearchSpace
    seed : int
        Seed of the points.

    Raises
    ------
    InputError
        Scikit-learn is not installed, or there is not one value per candidate.
    """
    if len(candidates) != len(values):
        raise InputError(f"importance: {len(candidates)} candidates and {len(values)} values")
    names = tuple(space.dimensions)
    # Candidates with the same masks count once: the surrogate would seem to predict the others.
    distinct = {
        space.identity(candidate): (candidate, value) for candidate, value in zip(candidates, values, strict=True)
    }
    trials = [(candidate, float(value)) for candidate, value in distinct.values() if np.isfinite(value)][:MOST_TRIALS]
    count, tried = len(trials), np.array([value for _, value in trials])
    if count < LEAST_TRIALS:
        return Importance(names, trials=count, reason=f"{count} different candidates; {LEAST_TRIALS} are needed")
    if np.ptp(tried) <= 1e-12:
        return Importance(names, trials=count, reason=f"the value is {tried[0]:.6g} in all {count} trials")
    surrogate, r2 = _fitted(_codes(space, [candidate for candidate, _ in trials]), tried)
    return _indices(surrogate, space, r2, count, seed)


def saltelli(
    at_a: NDArray[np.float64], at_b: NDArray[np.float64], at_mixed: NDArray[np.float64]
) -> tuple[float, float]:
    """Estimate the first-order (closed) and total Sobol index of a set of keys, both in [0, 1].

    Parameters
    ----------
    at_a, at_b : ndarray of float, shape (points,)
        Values of a function at independent points A and B of the space.
    at_mixed : ndarray of float, shape (points,)
        Values at A with the keys of the set as in B.
    """
    both = np.concatenate([at_a, at_b])
    closed = np.mean((at_b - both.mean()) * (at_mixed - at_a)) / both.var()
    total = 0.5 * np.mean((at_a - at_mixed) ** 2) / both.var()
    return float(np.clip(closed, 0, 1)), float(np.clip(total, 0, 1))


def one_at_a_time(space: SearchSpace, around: Mapping[str, Any], points: int = 7) -> dict[str, list[Candidate]]:
    """List for each key the candidates that differ from a given one in this key only.

    Parameters
    ----------
    space : SearchSpace
    around : mapping of str to Any
        Candidate to vary, usually the best one.
    points : int
        Number of values of a range to try, evenly from end to end; all choices are tried. Values that would change
        another key (a high threshold below the low one), and those that change no mask, are left out.
    """
    curves: dict[str, list[Candidate]] = {}
    for key, dimension in space.dimensions.items():
        shares = np.linspace(0, 1, points)
        tried = dimension.values if isinstance(dimension, Choices) else [dimension.at(float(share)) for share in shares]
        seen = {space.identity(around)}
        curves[key] = []
        for value in tried:
            candidate = {**around, key: value}
            identity = space.identity(candidate) if space.repair(candidate) == candidate else None
            if identity and identity not in seen:
                seen.add(identity)
                curves[key].append(candidate)
    return curves


def _codes(space: SearchSpace, candidates: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Code candidates as numbers in [0, 1], shape (candidates, keys)."""
    codes = np.array(
        [[dimension.code(c[key]) for key, dimension in space.dimensions.items()] for c in candidates],
        dtype=np.float64,
    )
    low = np.array([dimension.code(dimension.at(0)) for dimension in space.dimensions.values()])
    high = np.array([dimension.code(dimension.at(1)) for dimension in space.dimensions.values()])
    scaled: NDArray[np.float64] = (codes - low) / np.where(high > low, high - low, 1)
    return scaled


def _fitted(codes: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[Surrogate, float]:
    """Fit a Gaussian process; return it with its leave-one-out R2 under the hyperparameters of all trials."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern, WhiteKernel
    except ImportError as error:
        raise InputError(
            f'importance needs {error.name}, which is not installed: pip install "nx47dask[calibrate]"'
        ) from error
    kernel = Matern(np.ones(codes.shape[1]), LENGTHS, nu=2.5) + WhiteKernel(1e-3, (1e-6, 1))
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a key without influence is as smooth as is allowed
        process.fit(codes, values)
    missed = process.alpha_.ravel() / np.diag(cho_solve((process.L_, True), np.eye(len(codes))))
    return process.predict, float(1 - np.mean(missed**2))


def _indices(surrogate: Surrogate, space: SearchSpace, r2: float, count: int, seed: int) -> Importance:
    names = tuple(space.dimensions)
    shares = qmc.Sobol(2 * len(names), rng=np.random.default_rng(seed)).random(POINTS)
    points = _Points(space, shares[:, : len(names)], shares[:, len(names) :])
    at_a, at_b = surrogate(points.mixed([])), surrogate(points.mixed(range(len(names))))
    if np.var([at_a, at_b]) <= 1e-24:
        return Importance(names, r2=r2, trials=count, reason="the surrogate finds no dependence on any key")

    def index(keys: Sequence[int]) -> tuple[float, float]:
        return saltelli(at_a, at_b, surrogate(points.mixed(keys)))

    own = [index([number]) for number in range(len(names))]
    first, total = ([pair[kind] for pair in own] for kind in (0, 1))
    interaction = [max(0.0, t - f) for f, t in own]
    strongest = sorted(sorted(range(len(names)), key=lambda number: -interaction[number])[:PAIRED_KEYS])
    pairs = [
        (names[i], names[j], max(0.0, index([i, j])[0] - first[i] - first[j]))
        for i, j in itertools.combinations(strongest, 2)
    ]
    members = {group: [i for i, name in enumerate(names) if group_of(name) == group] for group in GROUPS}
    groups = {group: index(keys) for group, keys in members.items() if keys}
    return Importance(
        names,
        dict(zip(names, first, strict=True)),
        dict(zip(names, total, strict=True)),
        dict(zip(names, interaction, strict=True)),
        tuple(sorted(pairs, key=lambda pair: -pair[2])),
        {group: pair[0] for group, pair in groups.items()},
        {group: pair[1] for group, pair in groups.items()},
        r2,
        count,
    )


class _Points:
    """Points A and B of a space, shape (points, keys) in [0, 1], and points that mix their keys."""

    def __init__(self, space: SearchSpace, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        self.space = space
        self.raw = [
            [
                {
                    key: dimension.at(float(x))
                    for (key, dimension), x in zip(space.dimensions.items(), point, strict=True)
                }
                for point in ab
            ]
            for ab in (a, b)
        ]
        self.codes = [_codes(space, raw) for raw in self.raw]

    def mixed(self, keys: Sequence[int]) -> NDArray[np.float64]:
        """Return the codes of the points A with some of their keys (by number) as in B, repaired."""
        names = tuple(self.space.dimensions)
        codes = np.where(np.isin(np.arange(len(names)), keys), self.codes[1], self.codes[0])
        changed: dict[int, Candidate] = {}
        for row, (a, b) in enumerate(zip(*self.raw, strict=True)):
            candidate = a | {names[number]: b[names[number]] for number in keys}
            repaired = self.space.repair(candidate)
            if repaired != candidate:
                changed[row] = repaired
        if changed:
            codes[list(changed)] = _codes(self.space, list(changed.values()))
        return codes

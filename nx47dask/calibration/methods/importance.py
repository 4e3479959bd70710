"""Which keys of a search space the score depends on: Sobol indices of a surrogate fitted to the trials, and curves."""

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

from nx47dask.calibration.methods.dimensions import Choices
from nx47dask.calibration.methods.space import Candidate, SearchSpace, split_key
from nx47dask.errors import InputError

__all__ = ["GROUPS", "Group", "Importance", "group_of", "importances", "one_at_a_time", "saltelli"]

Group = Literal["quantile", "fusion", "post-processing"]
GROUPS: tuple[Group, ...] = ("quantile", "fusion", "post-processing")

LEAST_TRIALS = 20
MOST_TRIALS = 300
LENGTHS = (0.1, 100.0)
"""Over what part of its range a key changes the value."""
POINTS = 1024
"""Of each matrix of the Sobol indices; a power of 2."""
PAIRED_KEYS = 5
"""Keys with the largest interactions, of which all pairs are looked at."""
Surrogate = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Importance:
    """Shares of the variance of a value over the search space, where every key is varied evenly and on its own.

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
        The same indices of all keys of a group at once: what is within a group is no interaction. Groups without a key
        are left out.
    r2 : float or None
        How well the surrogate predicts a trial from the others, at most 1; indices of a bad surrogate mean little.
    trials : int
        Different candidates with a value.
    reason : str or None
        Why there are no indices.
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
        """The values as JSON has them."""
        return asdict(self)


def group_of(key: str) -> Group:
    """Which of the three questions a key belongs to: thresholds, fusion of sources, or everything after."""
    section, name, _ = split_key(key)
    if section != "postprocess":
        return "fusion"
    return "quantile" if name.partition("#")[0] in ("threshold", "hysteresis") else "post-processing"


def importances(
    candidates: Sequence[Mapping[str, Any]], values: NDArray[np.float64], space: SearchSpace, seed: int = 0
) -> Importance:
    """Variance-based importance of the keys of a space.

    A Gaussian process (Matern 5/2, a length per key; Rasmussen and Williams, "Gaussian processes for machine
    learning", 2006) is fitted to the trials; choices are numbered in their order. Its first-order and total Sobol
    indices are estimated as by Saltelli et al., "Variance based sensitivity analysis of model output", 2010, from
    points of a Sobol sequence over the whole space, repaired as candidates are.

    TPE tries almost only what was good before. A random forest takes what those trials have in common for a cause; a
    Gaussian process does not, and still gets better by them.

    Parameters
    ----------
    candidates : sequence of mapping, length N
        With all keys of the space.
    values : ndarray of float, shape (N,)
        What they are worth; trials without a finite value are left out, and those after the first 300: the earliest
        cover the space best.
    space : SearchSpace
    seed : int
        Of the points.

    Raises
    ------
    InputError
        Scikit-learn is not installed, or there is not one value per candidate.
    """
    if len(candidates) != len(values):
        raise InputError(f"importance: {len(candidates)} candidates and {len(values)} values")
    names = tuple(space.dimensions)
    # Of candidates that give the same masks one counts: the surrogate would seem to predict the others.
    distinct = {space.identity(one): (one, value) for one, value in zip(candidates, values, strict=True)}
    trials = [(one, float(value)) for one, value in distinct.values() if np.isfinite(value)][:MOST_TRIALS]
    count, tried = len(trials), np.array([value for _, value in trials])
    if count < LEAST_TRIALS:
        return Importance(names, trials=count, reason=f"{count} different candidates; {LEAST_TRIALS} are needed")
    if np.ptp(tried) <= 1e-12:
        return Importance(names, trials=count, reason=f"the value is {tried[0]:.6g} in all {count} trials")
    surrogate, r2 = _fitted(_codes(space, [one for one, _ in trials]), tried)
    return _indices(surrogate, space, r2, count, seed)


def saltelli(
    at_a: NDArray[np.float64], at_b: NDArray[np.float64], at_mixed: NDArray[np.float64]
) -> tuple[float, float]:
    """First-order (closed) and total Sobol index of a set of keys, both in [0, 1].

    Parameters
    ----------
    at_a, at_b : ndarray of float, shape (points,)
        A function at independent points A and B of the space.
    at_mixed : ndarray of float, shape (points,)
        At A with the keys of the set as in B.
    """
    both = np.concatenate([at_a, at_b])
    closed = np.mean((at_b - both.mean()) * (at_mixed - at_a)) / both.var()
    total = 0.5 * np.mean((at_a - at_mixed) ** 2) / both.var()
    return float(np.clip(closed, 0, 1)), float(np.clip(total, 0, 1))


def one_at_a_time(space: SearchSpace, around: Mapping[str, Any], points: int = 7) -> dict[str, list[Candidate]]:
    """Candidates that differ from one in a single key, per key.

    Parameters
    ----------
    space : SearchSpace
    around : mapping of str to Any
        The candidate to vary, usually the best one.
    points : int
        Values of a range to try, evenly from end to end; of choices all are tried. Values that would make another key
        change (a high threshold below the low one), and those that change no mask, are left out.
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
    """Candidates as numbers in [0, 1], shape (candidates, keys)."""
    codes = np.array(
        [[one.code(c[key]) for key, one in space.dimensions.items()] for c in candidates], dtype=np.float64
    )
    low = np.array([one.code(one.at(0)) for one in space.dimensions.values()])
    high = np.array([one.code(one.at(1)) for one in space.dimensions.values()])
    scaled: NDArray[np.float64] = (codes - low) / np.where(high > low, high - low, 1)
    return scaled


def _fitted(codes: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[Surrogate, float]:
    """A Gaussian process and its leave-one-out R2, with the hyperparameters of all trials."""
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
    """Points A and B of a space, shape (points, keys) in [0, 1], and those between them."""

    def __init__(self, space: SearchSpace, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        self.space = space
        self.raw = [
            [
                {key: one.at(float(x)) for (key, one), x in zip(space.dimensions.items(), point, strict=True)}
                for point in ab
            ]
            for ab in (a, b)
        ]
        self.codes = [_codes(space, raw) for raw in self.raw]

    def mixed(self, keys: Sequence[int]) -> NDArray[np.float64]:
        """Codes of the points A with some of their keys (by number) as in B, repaired."""
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

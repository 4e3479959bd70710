"""The terms of the competition's score, each with its weight, name and formula; see ``docs/scoring.md``.

The score is the weighted sum of :data:`TERMS`. Measures, reports and calibration read the terms from this table too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = [
    "CHEAP",
    "SCORES",
    "TERMS",
    "VOI_ALPHA",
    "OctantSums",
    "ScoreKey",
    "ScoreTerm",
    "ScoreValues",
    "TermKey",
    "dice",
    "ratio",
    "topology_score",
]

TermKey = Literal["topo", "surface_dice", "voi"]
ScoreKey = Literal["score", TermKey]


class ScoreValues(TypedDict):
    """The score and its terms, in [0, 1]."""

    score: float
    topo: float
    surface_dice: float
    voi: float


DIMENSION_WEIGHTS = (0.34, 0.33, 0.33)
VOI_ALPHA = 0.3


@dataclass(frozen=True)
class OctantSums:
    """Sums over the octants of a volume, from which the terms are computed.

    Attributes
    ----------
    counts : sequence of (int, int, int)
        For dimensions 0, 1, 2: number of matched features, of features of the prediction, of features of the labels.
    surface : tuple of four floats
        In square voxels: the prediction's area near the labels, the prediction's area, the labels' area near the
        prediction, the labels' area.
    split, merge : float
        Conditional entropies of the variation of information, in bits.
    """

    counts: Sequence[Sequence[int]]
    surface: tuple[float, float, float, float]
    split: float
    merge: float


@dataclass(frozen=True)
class ScoreTerm:
    """A term of the score.

    Attributes
    ----------
    weight : float
        Share of the score; the weights of all terms sum to 1.
    name : str
        Name in plain words.
    of : callable
        Computes the term, in [0, 1], from the sums of a volume.
    cheap : bool
        True if the term needs no count of features, which takes most of the time of a score.
    """

    weight: float
    name: str
    of: Callable[[OctantSums], float]
    cheap: bool

    @property
    def title(self) -> str:
        """Title of the term in tables."""
        return f"{self.name} term"


def topology_score(counts: Iterable[Sequence[int]]) -> float:
    """Return the F1 of matched features, averaged over the dimensions in which a mask has features.

    A dimension in which only the prediction has features scores 0.5 / (0.5 + their number).
    """
    scores, weights = [], []
    for weight, (matched, predicted, labelled) in zip(DIMENSION_WEIGHTS, counts, strict=True):
        if predicted or labelled:
            weights.append(weight)
            scores.append(2 * matched / (predicted + labelled) if labelled else 0.5 / (predicted + 0.5))
    if not weights:
        return 1.0
    return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; 1 where the whole is 0."""
    return part / whole if whole else 1.0


def dice(right: float, predicted: float, covered: float, labelled: float) -> float:
    """Return the Dice overlap from the sizes of prediction and labels and of their parts near the other."""
    return ratio(right + covered, predicted + labelled)


TERMS: dict[TermKey, ScoreTerm] = {
    "topo": ScoreTerm(0.30, "topology", lambda sums: topology_score(sums.counts), cheap=False),
    "surface_dice": ScoreTerm(0.35, "surface Dice", lambda sums: dice(*sums.surface), cheap=True),
    "voi": ScoreTerm(0.35, "VOI", lambda sums: 1 / (1 + VOI_ALPHA * (sums.split + sums.merge)), cheap=True),
}
"""Terms by their keys in ``volumes.json``."""
SCORES: tuple[ScoreKey, ...] = ("score", *TERMS)
"""Keys of the score and its terms."""
CHEAP: tuple[TermKey, ...] = tuple(key for key, term in TERMS.items() if term.cheap)
"""Keys of the cheap terms."""

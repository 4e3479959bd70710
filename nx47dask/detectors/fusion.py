"""Weighted mean of several sources of probability."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors.base import Detector
from nx47dask.detectors.learned import LearnedDetector
from nx47dask.errors import WorkflowError
from nx47dask.geometry import Box, Index
from nx47dask.kernels.log_odds import from_log_odds, log_odds
from nx47dask.kernels.statistics import ScanStatistics

__all__ = ["Combine", "Fusion", "weighted_mean"]

Combine = Literal["probability", "logit"]


@dataclass(frozen=True, slots=True)
class Fusion:
    """Weighted mean ``sum(w p) / sum(w)`` over the sources, in their order; of log-odds with ``combine: logit``.

    Every weight acts on every voxel, before thresholds. (V61.1 added its fusion weight to a whole slice before it took
    that slice's percentiles, where no constant can change the mask.) A source of weight 0 is not computed.

    Parameters
    ----------
    sources : tuple of (float, Detector)
        Weights and detectors. Weights are finite and at least 0; at least one is positive.
    combine : {"probability", "logit"}
        Terms of the mean. Log-odds, clipped to ±16, give a sure source more weight than an unsure one.

    Raises
    ------
    WorkflowError
        A weight is negative or not finite, or none is positive.
    """

    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    sources: tuple[tuple[float, Detector], ...]
    combine: Combine = "probability"

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.sources]
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(w > 0 for w in weights):
            raise WorkflowError(
                f"fusion: weights {weights}: each must be a finite number >= 0 and at least one of them > 0"
            )

    @property
    def active(self) -> tuple[tuple[float, Detector], ...]:
        """Sources of positive weight, with their weights."""
        return tuple((weight, detector) for weight, detector in self.sources if weight > 0)

    @property
    def learned(self) -> list[LearnedDetector]:
        """Trained networks among the active sources."""
        return [detector for _, detector in self.active if isinstance(detector, LearnedDetector)]

    @property
    def uses_gpu(self) -> bool:
        """True if at least one active network runs on a GPU."""
        return any(network.runtime.device == "cuda" for network in self.learned)

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Return the largest radius of the active sources along each axis, in voxels."""
        z, y, x = zip(*(detector.radius_zyx(scan) for _, detector in self.active), strict=True)
        return max(z), max(y), max(x)

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """Return the smallest box that holds the contexts of all active sources."""
        return _hull([detector.context(box, volume, scan) for _, detector in self.active])

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """Return the smallest box that holds the empty boxes of all active sources; None unless all have one.

        The mean of zeros is stored as 0: log-odds of -16 are a probability of 1e-7.
        """
        boxes = [detector.empty_box(core, volume, scan) for _, detector in self.active]
        known = [box for box in boxes if box is not None]
        return _hull(known) if len(known) == len(boxes) else None

    def probability(
        self, image: NDArray[np.unsignedinteger], outer: Box, core: Box, volume: Box, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """Compute the surface probability of ``core``, float32 (Z, Y, X) in [0, 1]; see :class:`Detector`."""
        total = math.fsum(weight for weight, _ in self.active)
        # A generator, so that one source at a time is in memory: a name for its result here would keep it there.
        parts = (
            (weight / total, self._source(detector, image, outer, core, volume, scan))
            for weight, detector in self.active
        )
        return weighted_mean(parts, core.shape, self.combine)

    @staticmethod
    def _source(
        detector: Detector,
        image: NDArray[np.unsignedinteger],
        outer: Box,
        core: Box,
        volume: Box,
        scan: ScanStatistics,
    ) -> NDArray[np.float32]:
        own = detector.context(core, volume, scan)
        part = np.ascontiguousarray(image[own.relative_to(outer.start).slices])
        return detector.probability(part, own, core, volume, scan)


def weighted_mean(
    parts: Iterable[tuple[float, NDArray[np.float32]]], shape: Index, combine: Combine
) -> NDArray[np.float32]:
    """Compute the weighted mean of probabilities, or the probability at the mean of their log-odds.

    Parameters
    ----------
    parts : iterable of (float, ndarray of float32, shape (Z, Y, X))
        Weights, which sum to 1, and probabilities in [0, 1]; these arrays are overwritten.
    shape : tuple of int
    combine : {"probability", "logit"}

    Returns
    -------
    ndarray of float32, shape (Z, Y, X), values in [0, 1]
    """
    result = np.zeros(shape, np.float32)
    for share, probability in parts:
        values = log_odds(probability) if combine == "logit" else probability
        values *= np.float32(share)
        result += values
        del probability, values
    return from_log_odds(result) if combine == "logit" else np.minimum(result, 1, out=result)


def _hull(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all boxes."""
    z0, y0, x0 = map(min, zip(*(box.start for box in boxes), strict=True))
    z1, y1, x1 = map(max, zip(*(box.stop for box in boxes), strict=True))
    return Box((z0, y0, x0), (z1, y1, x1))

"""Passes of a workflow over a whole volume in memory; the mask is the same as block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box
from nx47dask.kernels.components import find_components
from nx47dask.kernels.probability import slice_histograms
from nx47dask.merge.histograms import quantile_levels
from nx47dask.steps.base import Binarise
from nx47dask.steps.chain import apply_chain
from nx47dask.steps.passes import ComponentScan, Pass, QuantileScan

__all__ = ["whole_mask"]

NO_FACES = ((False, False),) * 3


def whole_mask(
    passes: Sequence[Pass], probability: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
) -> NDArray[np.bool_]:
    """Run the passes of a workflow over a volume that fits into memory.

    Parameters
    ----------
    passes : sequence of Pass
        Passes from :func:`~nx47dask.steps.passes.compile_passes`.
    probability : ndarray of uint8 or uint16, shape (Z, Y, X)
    image : ndarray of uint8 or uint16, shape (Z, Y, X), optional
        Scan, for steps that read it.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
    """
    data, levels, core = probability, None, Box.of_shape(_shape(probability))
    for current in passes:
        if current.resolve:
            data = _resolve(current.resolve, data)
        data, _ = apply_chain(current.local, data, image if current.reads_image else None, levels, core)
        levels = _levels(current.scan.thresholds, data) if isinstance(current.scan, QuantileScan) else None
    mask: NDArray[np.bool_] = data != 0
    return mask


def _levels(thresholds: Binarise, probability: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Return the stored probabilities at thresholds that are quantiles of a volume, shape (1 or Z, thresholds)."""
    histograms = slice_histograms(probability)
    if thresholds.by == "volume":
        histograms = histograms.sum(axis=0, keepdims=True)
    return quantile_levels(histograms, thresholds.thresholds)


def _resolve(rules: ComponentScan, state: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Label a whole volume and apply the verdict on its components."""
    components = find_components(state.astype(np.uint8, copy=False), rules.labelling, rules.attributes, NO_FACES)
    verdict = np.append(np.uint8(0), rules.decide(components.attributes))
    changed = verdict.take(components.labels) != 0
    foreground = state != 0
    result: NDArray[np.bool_] = foreground | changed if rules.labelling.background else foreground & ~changed
    return result.view(np.uint8)


def _shape(array: NDArray[np.unsignedinteger]) -> tuple[int, int, int]:
    depth, height, width = array.shape
    return depth, height, width

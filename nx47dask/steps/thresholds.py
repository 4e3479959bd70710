"""Thresholds that turn a probability into a mask: one threshold, or two with hysteresis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.kernels.components import AttributeName, Connectivity
from nx47dask.steps.base import Binarise, ComponentStep, Kind, Step, ThresholdBasis
from nx47dask.steps.dimensions import Dimension, Range
from nx47dask.steps.parameters import Role

Share = Annotated[float, Field(gt=0, le=1)]


def _usual_range(by: ThresholdBasis) -> Range:
    """Return the usual search range of a threshold."""
    return Range(0.2, 0.9, 0.05) if by == "value" else Range(0.75, 0.97, 0.01)


@dataclass(frozen=True)
class Threshold(Step):
    """Keep voxels whose probability reaches a threshold.

    Parameters
    ----------
    value : float
        Probability or quantile from which a voxel is surface. Raise it for fewer and surer voxels; lower it to recover
        faint sheets.
    by : {"value", "volume", "slice"}
        Meaning of the threshold: ``value`` is the probability itself, ``volume`` its quantile over the volume (0.9
        keeps the highest tenth), ``slice`` the quantile over each slice. Quantiles give all volumes the same share of
        mask.
    """

    takes: ClassVar[Kind] = "probability"

    value: Annotated[Share, Role.THRESHOLD] = 0.5
    by: ThresholdBasis = "value"

    def search(self) -> dict[str, Dimension]:
        return {"value": _usual_range(self.by)}

    def parts(self) -> tuple[Step, ...]:
        return (Binarise((self.value,), self.by),)


@dataclass(frozen=True)
class KeepStrong(ComponentStep):
    """Keep components that hold a voxel above the high threshold."""

    @property
    def attributes(self) -> tuple[AttributeName, ...]:
        return ("strong",)

    def changes(self, attributes: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        return ~attributes["strong"].astype(bool)


@dataclass(frozen=True)
class Hysteresis(Step):
    """Keep components of the voxels above the low threshold that hold a voxel above the high one.

    Parameters
    ----------
    low : float
        Probability or quantile from which a voxel can belong to a sheet (p_lo of NX47). Lower it to recover faint parts
        of sure sheets; sheets then join more easily.
    high : float
        Probability or quantile that at least one voxel of a component must reach for it to stay (p_hi of NX47), at
        least ``low``. Raise it to remove unsure pieces as a whole.
    by : {"value", "volume", "slice"}
        Meaning of the thresholds: ``value`` is the probability itself, ``volume`` its quantile over the volume (0.9
        keeps the highest tenth), ``slice`` the quantile over each slice. Quantiles give all volumes the same share of
        mask.
    connectivity : {6, 18, 26}
        Voxels that count as touching: 6 through faces, 18 also through edges, 26 also through corners.
    per_slice : bool
        Look for components in each slice alone (6 is then 4, 18 and 26 are 8), not through the whole volume.

    References
    ----------
    Canny (1986); the same as ``skimage.filters.apply_hysteresis_threshold`` with a choice of connectivity.
    """

    takes: ClassVar[Kind] = "probability"

    low: Annotated[Share, Role.LOW_THRESHOLD] = 0.4
    high: Annotated[Share, Role.HIGH_THRESHOLD] = 0.6
    by: ThresholdBasis = "value"
    connectivity: Connectivity = 26
    per_slice: bool = False

    def search(self) -> dict[str, Dimension]:
        return {"low": _usual_range(self.by), "high": _usual_range(self.by)}

    def parts(self) -> tuple[Step, ...]:
        return (Binarise((self.low, self.high), self.by), KeepStrong(self.connectivity, self.per_slice))

    def problem(self) -> str | None:
        return f"low {self.low} exceeds high {self.high}" if self.low > self.high else None

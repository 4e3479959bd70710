"""From probability to mask: one threshold, or two with hysteresis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.kernels.components import AttributeName, Connectivity
from nx47dask.steps.base import Binarise, ComponentStep, Kind, Step, ThresholdBasis

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Threshold(Step):
    """Keep voxels whose probability reaches a threshold.

    Parameters
    ----------
    value : float
        Threshold, a probability or a quantile.
    by : {"value", "volume", "slice"}
        The threshold is a probability, or a quantile over the volume or over each slice.
    """

    takes: ClassVar[Kind] = "probability"

    value: Share = 0.5
    by: ThresholdBasis = "value"

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
    low, high : float
        The thresholds, probabilities or quantiles; low must not exceed high. (NX47 calls them p_lo and p_hi.)
    by : {"value", "volume", "slice"}
        The thresholds are probabilities, or quantiles over the volume or over each slice.
    connectivity : {6, 18, 26}
        Which voxels touch: through faces; also through edges; also through corners.
    per_slice : bool
        Every slice on its own (6 is then 4, 18 and 26 are 8).

    References
    ----------
    Canny (1986); the same as ``skimage.filters.apply_hysteresis_threshold`` with a choice of connectivity.
    """

    takes: ClassVar[Kind] = "probability"

    low: Share = 0.4
    high: Share = 0.6
    by: ThresholdBasis = "value"
    connectivity: Connectivity = 26
    per_slice: bool = False

    def parts(self) -> tuple[Step, ...]:
        return (Binarise((self.low, self.high), self.by), KeepStrong(self.connectivity, self.per_slice))

    def problem(self) -> str | None:
        return f"low {self.low} exceeds high {self.high}" if self.low > self.high else None

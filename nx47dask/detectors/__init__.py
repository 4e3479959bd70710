"""Sources of surface probability, each exact under cropping and with a declared reach.

`DETECTORS` lists the names for a workflow. Two of its entries are not a `Detector` themselves: `Learned` becomes one
when a run is planned, and `ResidualBand`, the frozen V61.1, makes a mask in two phases.
"""

from __future__ import annotations

from nx47dask.detectors.base import Detector, RadiusDetector, quantise
from nx47dask.detectors.fusion import Combine, Fusion, weighted_mean
from nx47dask.detectors.learned import Learned, LearnedDetector
from nx47dask.detectors.residual import Residual, ResidualBand
from nx47dask.detectors.sheetness import Sheetness

__all__ = [
    "DETECTORS",
    "Combine",
    "Detector",
    "Fusion",
    "Learned",
    "LearnedDetector",
    "RadiusDetector",
    "Residual",
    "ResidualBand",
    "Sheetness",
    "quantise",
    "weighted_mean",
]

DETECTORS: dict[str, type] = {
    "learned": Learned,
    "residual": Residual,
    "residual_band": ResidualBand,
    "sheetness": Sheetness,
}

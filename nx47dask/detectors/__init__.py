"""Sources of surface probability, each exact under cropping with a declared radius.

A learned detector goes here as one file per model format, and into `DETECTORS` under its name.
`ResidualBand`, the frozen V61.1, makes a mask in two phases and is the one entry that is not a `Detector`.
"""

from __future__ import annotations

from nx47dask.detectors.base import Detector, ScanStatistics, quantise
from nx47dask.detectors.fusion import Fusion
from nx47dask.detectors.residual import Residual, ResidualBand
from nx47dask.detectors.sheetness import Sheetness

__all__ = [
    "DETECTORS",
    "Detector",
    "Fusion",
    "Residual",
    "ResidualBand",
    "ScanStatistics",
    "Sheetness",
    "quantise",
]

DETECTORS: dict[str, type] = {"residual": Residual, "residual_band": ResidualBand, "sheetness": Sheetness}

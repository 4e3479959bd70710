"""Sources of surface probability."""

from nx47dask.detectors.base import Detector, ScanStatistics, quantise
from nx47dask.detectors.fusion import Fusion
from nx47dask.detectors.residual import Residual, ResidualBand

DETECTORS: dict[str, type] = {"residual": Residual, "residual_band": ResidualBand}

__all__ = ["DETECTORS", "Detector", "Fusion", "Residual", "ResidualBand", "ScanStatistics", "quantise"]

"""Sheetness on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nx47dask.detectors import Sheetness
from nx47dask.kernels.statistics import ScanStatistics
from tests.conftest import sheets

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

IMAGE = sheets((36, 40, 45))
SCAN = ScanStatistics.of_histogram(np.bincount(IMAGE.ravel()))


def test_cropping_is_exact_on_a_gpu():
    detector = Sheetness(scales=(1,), side_radius_vox=5, device="cuda")
    whole = detector.respond(IMAGE, SCAN)
    assert detector.respond(IMAGE[:30], SCAN)[:12].tobytes() == whole[:12].tobytes()


def test_the_gpu_finds_what_the_cpu_finds():
    on_gpu, on_cpu = (Sheetness(device=device).respond(IMAGE, SCAN) for device in ("cuda", "cpu"))
    assert np.abs(on_gpu - on_cpu).max() < 1e-4

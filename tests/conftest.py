"""Shared fixtures: the data beside the project, when it is there, and small volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

settings.register_profile(
    "default", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("default")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with data/ and golden/ beside the project; tests that need it are skipped without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"shared data not found at {SHARED}")
    return SHARED


def sheets(shape, seed=0):
    """A small scan with bright wavy sheets, uint8."""
    z, y, x = np.indices(shape, dtype=np.float64)
    rng = np.random.default_rng(seed)
    phase = y / 3.1 + 2 * np.sin(x / 11 + seed) + np.sin(z / 7)
    image = 110 + 60 * np.sin(phase) + rng.normal(0, 12, shape)
    return np.clip(image, 1, 255).astype(np.uint8)


def crop(data, shape, radius):
    """A random box, the block around it within the array, and the box in that block."""
    core, block, inside = [], [], []
    for length in shape:
        start = data.draw(st.integers(0, length - 1))
        stop = data.draw(st.integers(start + 1, length))
        low = max(start - radius, 0)
        core.append(slice(start, stop))
        block.append(slice(low, min(stop + radius, length)))
        inside.append(slice(start - low, stop - low))
    return tuple(core), tuple(block), tuple(inside)


@pytest.fixture
def make_tiff(tmp_path):
    """Write a small sheet scan as a multipage TIFF and return its path."""

    def make(shape=(24, 40, 36), seed=0, name="910000001.tif", folder=None):
        path = (folder or tmp_path / "in") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, sheets(shape, seed), compression="lzw", photometric="minisblack")
        return path

    return make

"""Compiled kernels where nothing can be cached."""

from __future__ import annotations

import numba
import numba.core.caching
import numpy as np
import pytest

from nx47dask.kernels.compiled import compiled


def total(values):
    found = 0
    for value in values:
        found += value
    return found


def test_a_kernel_compiles_where_no_cache_can_be_written(monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(total)
    assert compiled(total)(np.arange(5)) == 10


def test_a_kernel_is_cached_elsewhere():
    assert compiled(total)._cache.cache_path

"""Loops over voxels that numpy cannot express, compiled by numba on first use and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers; it runs without Python's global interpreter lock.

    The result is cached beside the function or in numba's folder of the user. Where neither folder can be written, as
    in some containers, every process compiles for itself.
    """
    try:
        return cast("Function", njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast("Function", njit(nogil=True)(function))

"""Surface values from the output of an ONNX file, in numpy; `surface.SurfaceNetwork` does the same in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import ModelError
from nx47dask.models.base import ModelInfo

__all__ = ["class_error", "require_input", "surface_of"]

Floats = NDArray[np.float32]


def surface_of(output: NDArray[np.floating], info: ModelInfo) -> Floats:
    """Compute the probability or log-odds of the surface, as ``info.values`` says.

    Parameters
    ----------
    output : ndarray of floats, (B, classes, Z, Y, X)
        Output of the network; it is not changed.

    Returns
    -------
    ndarray of float32, (B, Z, Y, X)

    Raises
    ------
    ModelError
        The output has another number of classes or another shape.
    """
    expected = (output.shape[0], info.classes, *info.window_zyx)
    if output.shape != expected:
        raise class_error(info, output.shape, expected)
    surface = output[:, info.surface].astype(np.float32)
    if info.activation == "none":
        return surface
    odds = surface - _log_sum_exp(output, info.surface) if info.activation == "softmax" else surface
    return _sigmoid(odds) if info.values == "probability" else odds


def class_error(info: ModelInfo, output: object, expected: Sequence[int]) -> ModelError:
    """Return the error for a network whose output (a shape or the name of a type) is not as described."""
    return ModelError(
        f"{info.path}: the network returns {output}; expected {tuple(expected)}, (batch, classes, z, y, x) with "
        f"{info.classes} class{'es' if info.classes > 1 else ''} as its description says",
        hint="correct classes there, or check window_zyx",
    )


def require_input(info: ModelInfo, declared: Sequence[Any], kind: str, batch: int) -> None:
    """Refuse an ONNX file whose input is not as described.

    Parameters
    ----------
    declared : sequence
        Edges of the file's input; a fixed edge is an int.
    kind : str
        Element type of the input; float32 is "f32", "float32" or "tensor(float)".
    batch : int
        Windows that it must take at once.

    Raises
    ------
    ModelError
        The input does not fit; the message gives both shapes.
    """
    expected = (batch, 1, *info.window_zyx)
    fits = len(declared) == len(expected) and all(
        not isinstance(edge, int) or edge == wanted for edge, wanted in zip(declared, expected, strict=True)
    )
    if not fits or kind not in ("f32", "float32", "tensor(float)"):
        raise ModelError(
            f"{info.path}: takes {kind} {tuple(declared)}; expected float32 {expected}, (batch, 1, z, y, x)",
            hint="set batch and window_zyx to what it was exported for, or export it with a dynamic batch",
        )


def _log_sum_exp(output: NDArray[np.floating], surface: int) -> Floats:
    others = np.delete(output, surface, axis=1).astype(np.float32, copy=False)
    if others.shape[1] == 1:
        return others[:, 0]
    most = others.max(axis=1)
    total: Floats = most + np.log(np.exp(others - most[:, None]).sum(axis=1))
    return total


def _sigmoid(odds: Floats) -> Floats:
    """Turn log-odds into probabilities, in place; where exp overflows to inf the probability is correctly 0."""
    with np.errstate(over="ignore"):
        np.negative(odds, out=odds)
        np.exp(odds, out=odds)
    odds += np.float32(1)
    np.reciprocal(odds, out=odds)
    return odds

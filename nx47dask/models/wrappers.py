"""Wrappers that undo what a model file fixes: an axis order, a batch of one. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Exported", "Transposed"]


class Transposed(nn.Module):
    """Wrapper of a network whose axes are not in the order Z, Y, X.

    Parameters
    ----------
    network : nn.Module
    order : sequence of int
        Axis ``i`` of the network is axis ``order[i]`` of the volume (``transpose_forward`` of nnU-Net).
    """

    def __init__(self, network: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.forward_axes = (0, 1, *(2 + axis for axis in order))
        self.backward_axes = (0, 1, *(2 + order.index(axis) for axis in range(3)))

    def forward(self, image: Tensor) -> Tensor:
        """From (B, 1, Z, Y, X) to (B, classes, Z, Y, X)."""
        output: Tensor = self.network(image.permute(self.forward_axes))
        return output.permute(self.backward_axes)


class Exported(nn.Module):
    """Wrapper of an exported program that makes it take any batch.

    Parameters
    ----------
    program : nn.Module
    one_by_one : bool
        True for a program that was exported for a batch of one.
    """

    def __init__(self, program: nn.Module, *, one_by_one: bool) -> None:
        super().__init__()
        self.program = program
        self.one_by_one = one_by_one

    def train(self, mode: bool = True) -> Exported:
        """Change nothing: a program keeps the mode that it was exported in, and fails when asked to change it."""
        self.training = False
        return self

    def forward(self, image: Tensor) -> Tensor:
        """From (B, 1, Z, Y, X) to (B, classes, Z, Y, X)."""
        parts = image.split(1) if self.one_by_one else (image,)
        return torch.cat([self.program(part) for part in parts])

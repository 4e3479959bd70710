"""Surface values from the output of networks: probability or log-odds, averaged over the members. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nx47dask.errors import ModelError
from nx47dask.models.backends.onnx_output import class_error
from nx47dask.models.base import ModelInfo, OnnxNetwork

__all__ = ["SurfaceNetwork", "as_network", "failures_named"]


class SurfaceNetwork(nn.Module):
    """Network that averages the surface over its members, from (B, 1, Z, Y, X) to float32 (B, Z, Y, X).

    Parameters
    ----------
    networks : sequence of nn.Module
        The members, each from (B, 1, Z, Y, X) to (B, classes, Z, Y, X).
    info : ModelInfo
    """

    def __init__(self, networks: Sequence[nn.Module | OnnxNetwork], info: ModelInfo) -> None:
        super().__init__()
        self.networks = nn.ModuleList(network for network in networks if isinstance(network, nn.Module))
        self.info = info
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean of the surface over the members."""
        first, *others = self.networks
        total = self._surface(first(image), image)
        for network in others:
            total = total + self._surface(network(image), image)
        return total / len(self.networks) if others else total

    def _surface(self, output: Tensor, image: Tensor) -> Tensor:
        expected = (len(image), self.info.classes, *self.info.window_zyx)
        # In a trace the edges of a shape are tensors.
        returned = tuple(map(int, output.shape)) if isinstance(output, Tensor) else type(output).__name__
        if returned != expected:
            raise class_error(self.info, returned, expected)
        output = output.float()
        if self.info.activation == "none":
            return output[:, self.info.surface]
        odds = self._log_odds(output)
        return torch.sigmoid(odds) if self.info.values == "probability" else odds

    def _log_odds(self, output: Tensor) -> Tensor:
        surface = self.info.surface
        if self.info.activation == "sigmoid":
            return output[:, surface]
        others = torch.cat([output[:, :surface], output[:, surface + 1 :]], 1)
        rest = others[:, 0] if self.info.classes == 2 else torch.logsumexp(others, 1)
        return output[:, surface] - rest


def as_network(networks: Sequence[nn.Module | OnnxNetwork], info: ModelInfo) -> SurfaceNetwork:
    """Join the members into one network, with weights in channels-last order, which is faster for convolutions."""
    network = SurfaceNetwork(networks, info)
    for weight in network.parameters():
        if weight.dim() == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    return network


@contextmanager
def failures_named(info: ModelInfo) -> Iterator[None]:
    """Turn errors of a network, which can be code of any origin, into errors that name the model.

    Raises
    ------
    ModelError
        The network failed.
    """
    try:
        yield
    except (ModelError, torch.cuda.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise ModelError(
            f"{info.path}: the network fails on windows of {info.window_zyx} voxels ({type(error).__name__}: {error})",
            hint="check window_zyx of its description",
        ) from error

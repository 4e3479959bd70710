"""Architecture of the default model: a compact residual 3-D U-Net that works at half resolution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SurfaceUNet", "surface_unet"]


class SurfaceUNet(nn.Module):
    """Residual U-Net on 2x2x2 blocks of voxels.

    Space-to-depth at the entrance and a pixel shuffle at the exit keep every convolution at half resolution or less,
    because convolutions take most of a CPU's time. The eight voxels of a block become eight channels.

    Parameters
    ----------
    channels : sequence of int
        Channels at half resolution and at every level below. Each level has half the resolution of the level above.
    blocks : int
        Residual blocks of a level, going down and going up.

    Notes
    -----
    Ronneberger et al. (2015), "U-Net"; residual blocks in pre-activation order after He et al. (2016), "Identity
    mappings in deep residual networks"; exit after Shi et al. (2016), "Real-time single image and video
    super-resolution using an efficient sub-pixel convolutional neural network".
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128), blocks: int = 1) -> None:
        super().__init__()
        self.entrance = nn.Conv3d(8, channels[0], 3, padding=1)
        # None going down at half resolution, where a block costs most: the entrance is a convolution already.
        self.down = nn.ModuleList(_level(width, blocks if level else 0) for level, width in enumerate(channels))
        self.narrow = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in itertools.pairwise(channels))
        self.widen = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in itertools.pairwise(channels))
        self.up = nn.ModuleList(_level(width, blocks) for width in channels[:-1])
        self.exit = nn.Sequential(_normalise(channels[0]), nn.SiLU(), nn.Conv3d(channels[0], 8, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the surface, (B, 1, Z, Y, X), of normalised voxels of that shape.

        The edges Z, Y and X are multiples of 16.
        """
        features = self.entrance(_to_depth(image))
        kept: list[Tensor] = []
        for level, narrow in zip(self.down, self.narrow, strict=False):
            features = level(features)
            kept.append(features)
            features = narrow(features)
        features = self.down[-1](features)
        for level, widen, skip in zip(reversed(self.up), reversed(self.widen), reversed(kept), strict=True):
            features = level(functional.interpolate(widen(features), scale_factor=2.0, mode="nearest") + skip)
        return _to_space(self.exit(features))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first, last = (nn.Conv3d(width, width, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(_normalise(width), nn.SiLU(), first, _normalise(width), nn.SiLU(), last)
        for parameter in last.parameters():  # a new block changes nothing yet
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = features + self.body(features)
        return result


def surface_unet() -> SurfaceUNet:
    """Build the network of the default model, without its weights."""
    return SurfaceUNet()


def _level(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width) for _ in range(blocks)))


def _normalise(width: int) -> nn.Module:
    return nn.GroupNorm(max(1, width // 8), width)


def _to_depth(image: Tensor) -> Tensor:
    batch, _, z, y, x = image.shape
    blocks = image.reshape(batch, z // 2, 2, y // 2, 2, x // 2, 2)
    return blocks.permute(0, 2, 4, 6, 1, 3, 5).reshape(batch, 8, z // 2, y // 2, x // 2)


def _to_space(features: Tensor) -> Tensor:
    batch, _, z, y, x = features.shape
    blocks = features.reshape(batch, 2, 2, 2, z, y, x)
    return blocks.permute(0, 4, 1, 5, 2, 6, 3).reshape(batch, 1, 2 * z, 2 * y, 2 * x)

"""The loss of the default model: cross-entropy, soft Dice and skeleton recall, over labelled voxels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nx47dask.phantom.render import LABEL_IGNORE
from training.volumes import SKELETON

__all__ = ["surface_loss"]

SKELETON_WEIGHT = 0.3


def surface_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute cross-entropy + (1 - soft Dice) + 0.3 (1 - recall of the medial surface), without ignored voxels.

    Parameters
    ----------
    logits : Tensor of float32, (B, 1, Z, Y, X)
    target : Tensor of uint8, (B, 1, Z, Y, X)
        0 background, 1 surface, 2 ignore, 3 medial surface.

    Notes
    -----
    Soft Dice: Milletari et al. (2016), "V-Net". Skeleton recall: Kirchhoff et al. (2024), "Skeleton recall loss for
    connectivity conserving and resource efficient segmentation of thin tubular structures", with the medial surface
    of a sheet in place of a tube's skeleton.
    """
    known = (target != LABEL_IGNORE).float()
    surface = ((target & 1) != 0).float()
    middle = (target == SKELETON).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, surface, weight=known, reduction="sum")
    probability = torch.sigmoid(logits) * known
    dice = (2 * (probability * surface).sum() + 1) / (probability.sum() + surface.sum() + 1)
    recall = ((probability * middle).sum() + 1) / (middle.sum() + 1)
    return entropy / known.sum().clamp(min=1) + (1 - dice) + SKELETON_WEIGHT * (1 - recall)

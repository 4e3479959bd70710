"""A network of two small convolutions as a TorchScript file, for tests of what runs networks."""

from __future__ import annotations

import torch
import yaml
from torch import nn

DESCRIPTION = {
    "window_zyx": [16, 16, 16],
    "classes": 1,
    "activation": "sigmoid",
    "normalisation": {"scheme": "zscore"},
}


def write_model(path, seed=0, **description):
    """Write a model of random weights, the same for the same seed, with its description beside it."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 1, 3, padding=1)).eval()
    with torch.no_grad():
        network[2].weight *= 4
    torch.jit.script(network).save(path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump({**DESCRIPTION, **description}))
    return path


def learned(model, **settings):
    """An entry of a workflow."""
    return {"learned": {"model": str(model), "backend": "torch", **settings}}

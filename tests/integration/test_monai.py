"""Learned detection against MONAI's sliding windows: the same network, windows, weights and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file

import nx47dask
from nx47dask.models.surface_unet import surface_unet
from tests.conftest import sheets

SHAPE = (56, 64, 72)
WINDOW = (32, 32, 32)
DESCRIPTION = {
    "window_zyx": list(WINDOW),
    "activation": "sigmoid",
    "normalisation": {"scheme": "zscore"},
    "factory": "nx47dask.models.surface_unet:surface_unet",
}


@pytest.fixture(scope="module")
def image():
    scan = sheets(SHAPE)
    scan[:, 30:, :24] //= 2
    return scan


@pytest.fixture(scope="module")
def normal(image):
    """The scan as the network sees it, (1, 1, Z, Y, X)."""
    values = (image - np.float32(image.mean())) / np.float32(image.std())
    return torch.from_numpy(values)[None, None]


@pytest.fixture(scope="module")
def network(normal):
    """The default model's network with random weights and log-odds that spread over all probabilities."""
    torch.manual_seed(0)
    network = surface_unet().eval().requires_grad_(False)
    for weight in network.parameters():
        if not weight.any():
            weight.normal_(std=0.1)
    last = network.exit[-1]
    odds = network(normal[..., :48, :48, :48])
    last.bias -= odds.mean()
    for value in (last.weight, last.bias):
        value *= 4 / odds.std()
    return network


@pytest.fixture(scope="module")
def model(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    save_file(network.state_dict(), path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(DESCRIPTION))
    return path


@pytest.mark.parametrize(
    ("backend", "values"), [("torch", "probability"), ("torch", "logit"), ("openvino", "probability")]
)
def test_equal_to_monai(tmp_path, image, normal, network, model, backend, values):
    pytest.importorskip(backend)
    tifffile.imwrite(tmp_path / "scan.tif", image, photometric="minisblack")
    source = {"model": str(model), "overlap": 0.5, "values": values, "backend": backend, "support_level": None}
    workflow = {"detect": [{"learned": source}], "postprocess": [{"threshold": {"value": 0.5}}]}
    (tmp_path / "workflow.yaml").write_text(yaml.safe_dump(workflow))
    done = nx47dask.run(
        [tmp_path / "scan.tif"],
        tmp_path / "run",
        workflow=tmp_path / "workflow.yaml",
        overrides=("detect_block=64",),
        block=32,
        serial=True,
        console=Console(quiet=True),
    )
    levels = np.rint(255 * _monai(normal, network, values)).astype(np.int16)
    apart = np.abs(done.probability.compute().astype(np.int16) - levels)
    assert levels.std() > 60
    assert apart.max() <= 2
    assert np.mean(apart <= 1) >= 0.999


def _monai(normal, network, values):
    """Blended by MONAI: probabilities, or log-odds that become probabilities afterwards."""
    if values == "logit":
        return _windows(normal, network).sigmoid()[0, 0].numpy()
    return _windows(normal, lambda batch: network(batch).sigmoid())[0, 0].numpy()


def _windows(normal, predictor):
    from monai.inferers import sliding_window_inference  # takes seconds, also where this test is not run

    return sliding_window_inference(normal, WINDOW, 1, predictor, overlap=0.5, mode="gaussian")

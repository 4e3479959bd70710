"""Models from files: what they say of themselves, what loads, what is refused and how the refusal reads."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from nx47dask.errors import InputError, ModelError
from nx47dask.kernels.normalisation import Normalisation
from nx47dask.models import OnnxNetwork, describe_model, load_networks
from nx47dask.models.sidecar import EXAMPLE

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

DESCRIBED = {
    "window_zyx": [4, 6, 8],
    "classes": 2,
    "surface": 1,
    "activation": "softmax",
    "normalisation": {"scheme": "zscore"},
}
FACTORY = f"{__name__}:tiny"


def tiny():
    torch.manual_seed(47)
    return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 1)).eval()


def not_a_network():
    return "no network"


def write_model(folder, suffix, network=None, **described):
    """A model file with its description; a key set to None is left out."""
    path, network = folder / f"net{suffix}", network or tiny()
    example = torch.zeros(1, 1, 4, 6, 8)
    if suffix == ".safetensors":
        save_file(network.state_dict(), path)
        described = {"factory": FACTORY} | described
    elif suffix == ".pt2":
        torch.export.save(torch.export.export(network, (example,)), path)
    elif suffix == ".ts":
        torch.jit.save(torch.jit.trace(network, example), path)
    else:
        path.write_bytes(b"a graph")
    known = {key: value for key, value in (DESCRIBED | described).items() if value is not None}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(known, sort_keys=False, default_flow_style=None))
    return path


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".safetensors", "safetensors"), (".pt2", "torch_export"), (".ts", "torchscript"), (".onnx", "onnx")],
)
def test_a_file_is_described_by_the_yaml_beside_it(tmp_path, suffix, kind):
    info = describe_model(str(write_model(tmp_path, suffix, mirrors=["x", "z"])), trust=True)
    assert (info.format, info.window_zyx, info.step_zyx, info.placement) == (kind, (4, 6, 8), (2, 3, 4), "flush")
    assert (info.classes, info.surface, info.activation, info.values) == (2, 1, "softmax", "probability")
    assert (info.normalisation, info.mirrors, info.members) == (Normalisation("zscore"), (0, 2), 1)
    assert pickle.loads(pickle.dumps(info)) == info
    assert json.loads(json.dumps(info.to_json()))["path"] == str(tmp_path / f"net{suffix}")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2", ".ts"])
def test_a_file_gives_the_network_that_was_saved(tmp_path, suffix):
    (network,) = load_networks(describe_model(write_model(tmp_path, suffix), trust=True), trust=True)
    windows = torch.randn(3, 1, 4, 6, 8)  # exported for a batch of one
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(windows), tiny()(windows))
    assert not network.training


def test_onnx_is_left_to_its_backend_and_its_outside_weights_are_hashed(tmp_path):
    path = write_model(tmp_path, ".onnx")
    alone = describe_model(path)
    assert load_networks(alone) == [OnnxNetwork(path)]
    path.with_name("net.onnx.data").write_bytes(b"weights")
    assert describe_model(path).sha256 != alone.sha256


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2", ".ts", ".onnx"])
def test_weights_that_changed_since_the_plan_are_refused(tmp_path, suffix):
    path = write_model(tmp_path, suffix)
    info = describe_model(path, trust=True)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ModelError, match=rf"weights changed.*{info.sha256} then"):
        load_networks(info, trust=True)


@pytest.mark.parametrize(
    ("suffix", "what"), [(".safetensors", f"built by {FACTORY}"), (".pt2", r"torch\.export\.load unpickles")]
)
def test_what_can_run_code_needs_trust(tmp_path, suffix, what):
    path = write_model(tmp_path, suffix)
    with pytest.raises(ModelError, match=rf"{path.name}: .*{what}.*--trust"):
        describe_model(path)
    with pytest.raises(ModelError, match="--trust"):
        load_networks(describe_model(path, trust=True))


def test_the_networks_of_the_package_need_no_trust(tmp_path):
    from nx47dask.models.surface_unet import surface_unet

    factory = "nx47dask.models.surface_unet:surface_unet"
    described = {"classes": 1, "surface": None, "activation": "sigmoid", "window_zyx": [16, 16, 16]}
    info = describe_model(write_model(tmp_path, ".safetensors", surface_unet(), factory=factory, **described))
    assert info.surface == 0
    assert len(load_networks(info)) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "a folder without plans.json"),
        ("net.pth", r"a pickle.*safetensors\.torch\.save_file"),
        ("checkpoint_final.pth", "a checkpoint of an nnU-Net; give the folder"),
        ("net.h5", r"unknown kind of model '\.h5'; expected an nnU-Net v2 folder"),
        ("net.pt", r"not a TorchScript file.*save_file"),
        ("absent.onnx", "no such model; give 'surface'"),
        ("bare.onnx", r"its description bare\.yaml is missing"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    if name not in ("folder", "absent.onnx"):
        (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ModelError, match=message) as caught:
        describe_model(tmp_path / name, trust=True)
    assert caught.value.exit_code == 2


def test_the_example_in_the_message_is_a_description(tmp_path):
    path = write_model(tmp_path, ".onnx")
    path.with_suffix(".yaml").write_text(EXAMPLE)
    assert describe_model(path).window_zyx == (64, 64, 64)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"windows": 3}, r"net\.yaml, line 6: unknown key 'windows' \(did you mean 'window_zyx'\?\)"),
        ({"window_zyx": None}, "window_zyx is missing; for example"),
        ({"window_zyx": [4, 6]}, r"line 1: window_zyx"),
        ({"normalisation": {"scheme": "zscore", "scop": "window"}}, r"line 5.*'scop' \(did you mean 'scope'\?\)"),
        ({"normalisation": {"scheme": "fixed", "std": 0}}, r"std 0\.0.*above 0"),
        ({"activation": "relu"}, r"line 4: activation = 'relu'"),
        ({"surface": None}, "classes: 2, but not which of them is the surface"),
        ({"surface": 2}, "surface: 2 is not one of the 2 classes, 0 to 1"),
        ({"classes": 1, "surface": None}, "softmax of one class is always 1"),
        ({"activation": "none", "values": "logit"}, "activation: none says that it is a probability"),
        ({"step_zyx": [4, 7, 8]}, r"step_zyx: \(4, 7, 8\) is larger than window_zyx \(4, 6, 8\)"),
    ],
)
def test_a_wrong_description_names_the_line_or_the_contradiction(tmp_path, changed, message):
    with pytest.raises((InputError, ModelError), match=message):
        describe_model(write_model(tmp_path, ".onnx", **changed))


def test_an_export_shares_the_description_of_the_weights(tmp_path):
    path = write_model(tmp_path, ".safetensors")
    path.with_suffix(".onnx").write_bytes(b"a graph")
    assert describe_model(path, trust=True).factory == FACTORY
    assert describe_model(path.with_suffix(".onnx")).factory is None


def test_the_surface_can_be_given_where_the_description_is_wrong(tmp_path):
    path = write_model(tmp_path, ".onnx", surface=None)
    assert describe_model(path, surface=0).surface == 0
    with pytest.raises(ModelError, match="have numbers, 0 to 1, no names"):
        describe_model(path, surface="recto")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_module:build", r"cannot be imported \(No module named 'no_such_module'\); put its folder"),
        (f"{__name__}:no_such_function", "cannot be imported"),
        (f"{__name__}:not_a_network", r"gave a str, not a torch\.nn\.Module"),
        ("nx47dask.models.surface_unet:surface_unet", "do not fit the network SurfaceUNet"),
    ],
)
def test_a_factory_that_does_not_fit_is_named(tmp_path, factory, message):
    info = describe_model(write_model(tmp_path, ".safetensors", factory=factory), trust=True)
    with pytest.raises(ModelError, match=message):
        load_networks(info, trust=True)


def test_safetensors_without_a_factory_or_damaged(tmp_path):
    path = write_model(tmp_path, ".safetensors")
    path.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="not a safetensors file, or damaged"):
        load_networks(describe_model(path, trust=True), trust=True)
    with pytest.raises(InputError, match="factory is missing"):
        describe_model(write_model(tmp_path, ".safetensors", factory=None))


def test_an_exported_program_fits_its_window_only(tmp_path):
    path = write_model(tmp_path, ".pt2", window_zyx=[4, 6, 10])
    with pytest.raises(ModelError, match=r"exported for windows of 1 x 4 x 6 x 8 .*but 1 x 4 x 6 x 10 is asked for"):
        load_networks(describe_model(path, trust=True), trust=True)
    path.write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"not a file that torch\.export\.save wrote"):
        load_networks(describe_model(path, trust=True), trust=True)


def test_the_default_model_is_found_by_its_name():
    from nx47dask.models.base import default_model_path

    assert default_model_path().relative_to(Path(__file__).parents[2]).as_posix() == (
        "nx47dask/models/weights/surface.safetensors"
    )

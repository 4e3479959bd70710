"""nnU-Net folders written by hand: what is read from plans, labels and checkpoints, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nx47dask.errors import InputError, ModelError
from nx47dask.kernels.normalisation import Normalisation
from nx47dask.models import describe_model, load_networks

ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [2, 4],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
OLD_WORDS = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 2,
    "unet_max_num_features": 4,
    "n_conv_per_stage_encoder": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
}


def write_folder(folder, *, labels=None, channels=("scan",), folds=("0",), weights=None, plans=None, **configuration):
    """A folder as training leaves it; ``configuration`` changes 3d_fullres, from which the trained one inherits."""
    fullres = {
        "patch_size": [8, 12, 16],
        "spacing": [2.0, 2.0, 2.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": ARCHITECTURE,
    } | configuration
    written = {
        "configurations": {"3d_fullres": fullres, "mine": {"inherits_from": "3d_fullres", "batch_size": 9}},
        "original_median_spacing_after_transp": [2.0, 2.0, 2.0],
        "transpose_forward": [0, 1, 2],
    } | (plans or {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(written))
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels or {"background": 0, "papyrus": 1, "ignore": 2},
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        checkpoint = {
            "network_weights": weights or {},
            "init_args": {"configuration": "mine"},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (1, 2),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def test_the_trained_configuration_is_read_with_what_it_inherits(tmp_path):
    info = describe_model(write_folder(tmp_path / "any.name"))
    assert (info.window_zyx, info.step_zyx, info.placement, info.values) == ((8, 12, 16), (4, 6, 8), "even", "logit")
    assert (info.classes, info.surface, info.activation, info.mirrors) == (2, 1, "softmax", (1, 2))
    assert "spacing 2" in info.notes[0]
    assert info.name == "any.name"


GREY = {"percentile_00_5": 10.0, "percentile_99_5": 200.0, "mean": 90.5, "std": 30.5}


@pytest.mark.parametrize(
    ("scheme", "masked", "expected"),
    [
        ("ZScoreNormalization", True, Normalisation("zscore", nonzero=True)),
        ("CTNormalization", False, Normalisation("fixed", low=10.0, high=200.0, mean=90.5, std=30.5)),
        ("RescaleTo01Normalization", False, Normalisation("minmax")),
        ("RGBTo01Normalization", False, Normalisation("fixed", std=255.0)),
        ("NoNormalization", False, Normalisation("none")),
    ],
)
def test_normalisations_of_the_plans(tmp_path, scheme, masked, expected):
    plans = {"foreground_intensity_properties_per_channel": {"0": GREY}}
    folder = write_folder(tmp_path, plans=plans, normalization_schemes=[scheme], use_mask_for_norm=[masked])
    assert describe_model(folder).normalisation == expected


@pytest.mark.parametrize(
    ("labels", "given", "classes", "surface", "activation"),
    [
        ({"background": 0, "air": 1, "Recto_Surface": 2, "ignore": 3}, None, 3, 2, "softmax"),
        ({"background": 0, "sheet": 1}, None, 2, 1, "softmax"),
        ({"background": 0, "front": 1, "back": 2}, "back", 3, 2, "softmax"),
        ({"background": 0, "front": 1, "back": 2}, 1, 3, 1, "softmax"),
        ({"background": 0, "surface": [1, 2], "core": 2, "ignore": 3}, None, 2, 0, "sigmoid"),
        ({"background": 0, "all": [1, 2], "recto": [2]}, None, 2, 1, "sigmoid"),
    ],
)
def test_the_label_of_the_surface(tmp_path, labels, given, classes, surface, activation):
    info = describe_model(write_folder(tmp_path, labels=labels), surface=given)
    assert (info.classes, info.surface, info.activation) == (classes, surface, activation)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"channels": ("scan", "fibres")}, r"trained on 2 channels \(scan, fibres\)"),
        ({"patch_size": [32, 32]}, "'mine' works on 2-D slices"),
        ({"previous_stage": "3d_lowres"}, "needs the output of '3d_lowres'"),
        ({"spacing": [3.0, 3.0, 3.0]}, "nothing is resampled here; train 3d_fullres"),
        ({"spacing": [4.0, 2.0, 2.0]}, "those of a scan are cubes"),
        ({"normalization_schemes": ["MyNormalization"]}, "'MyNormalization' is not known"),
        ({"labels": {"background": 0, "a": 1, "b": 2}}, "which label is the surface.*1 'a', 2 'b'.*surface: NAME"),
        ({"labels": {"background": 0, "recto": 1, "verso_surface": 2}}, "which label is the surface"),
        ({"folds": ()}, r"no fold_\*/checkpoint_final\.pth"),
        ({"plans": {"configurations": None}}, r"plans\.json: not of nnU-Net v2: it has no configurations"),
        ({"patch_size": None}, r"plans\.json, configuration 'mine': it has no patch_size"),
        ({"plans": {"configurations": {"2d": {}}}}, r"trained as 'mine', which plans\.json does not have \(2d\)"),
    ],
)
def test_what_is_not_done_is_refused(tmp_path, changed, message):
    with pytest.raises(ModelError, match=message):
        describe_model(write_folder(tmp_path, **changed))


def test_a_surface_that_is_no_label_is_refused(tmp_path):
    for given in ("recto", 0, 2):
        with pytest.raises(ModelError, match=f"surface {given!r} is not one of its labels; its labels are 1 'papyrus'"):
            describe_model(write_folder(tmp_path), surface=given)


def test_files_that_are_missing_or_damaged_are_named(tmp_path):
    folder = write_folder(tmp_path / "a")
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"fold_0/checkpoint_final\.pth: damaged"):
        describe_model(folder, trust=True)
    torch.save({"state_dict": {}}, checkpoint)
    with pytest.raises(ModelError, match="it has no network_weights, init_args"):
        describe_model(folder, trust=True)
    checkpoint.rename(checkpoint.with_name("checkpoint_best.pth"))
    with pytest.raises(ModelError, match=r"found fold_0/checkpoint_best\.pth: training has not ended"):
        describe_model(folder, trust=True)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset\.json: cannot be read"):
        describe_model(folder, trust=True)


def test_a_pickle_needs_trust(tmp_path):
    folder = write_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path) | {"_best_ema": np.float64(0.5), "where": Path("/")}, path)
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth: .*a pickle.*--trust"):
        describe_model(folder)
    assert describe_model(folder, trust=True).members == 1


def test_numbered_folds_count_and_all_stands_in(tmp_path):
    assert describe_model(write_folder(tmp_path / "a", folds=("0", "2", "10", "all"))).members == 3
    assert describe_model(write_folder(tmp_path / "b", folds=("all",))).members == 1


@pytest.fixture
def unet():
    unets = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet", reason="pip install 'nx47dask[nnunet]'"
    )
    arguments = ARCHITECTURE["arch_kwargs"] | {
        "conv_op": torch.nn.Conv3d,
        "norm_op": torch.nn.InstanceNorm3d,
        "nonlin": torch.nn.LeakyReLU,
    }
    torch.manual_seed(47)
    return unets.PlainConvUNet(input_channels=1, num_classes=2, deep_supervision=True, **arguments).eval()


@pytest.mark.parametrize("words", [{}, {"architecture": None} | OLD_WORDS], ids=["plans", "old plans"])
def test_the_network_of_the_plans_without_deep_supervision(tmp_path, unet, words):
    folder = write_folder(tmp_path, weights=unet.state_dict(), folds=("0", "1"), **words)
    if words:
        plans = json.loads((folder / "plans.json").read_text())
        del plans["configurations"]["3d_fullres"]["architecture"]
        (folder / "plans.json").write_text(json.dumps(plans))
    first, second = load_networks(describe_model(folder))
    windows = torch.randn(2, 1, 8, 12, 16)
    with torch.inference_mode():
        torch.testing.assert_close(first(windows), unet(windows)[0])
        torch.testing.assert_close(second(windows), unet(windows)[0])


def test_a_transposed_network_is_turned(tmp_path, unet):
    plans = {"transpose_forward": [2, 0, 1]}
    info = describe_model(write_folder(tmp_path, weights=unet.state_dict(), plans=plans))
    assert (info.window_zyx, info.mirrors) == ((12, 16, 8), (0, 1))  # what the network calls 1, 2 is Z, Y
    (network,) = load_networks(info)
    windows = torch.randn(1, 1, 12, 16, 8)
    with torch.inference_mode():
        expected = unet(windows.permute(0, 1, 4, 2, 3))[0].permute(0, 1, 3, 4, 2)
        torch.testing.assert_close(network(windows), expected)


def test_networks_that_do_not_fit_are_named(tmp_path, unet):
    weights = {name: tensor for name, tensor in unet.state_dict().items() if "seg_layers" not in name}
    with pytest.raises(
        ModelError, match=r"fold_0/checkpoint_final\.pth: the weights do not fit.*PlainConvUNet: Missing"
    ):
        load_networks(describe_model(write_folder(tmp_path, weights=weights)))
    own = ARCHITECTURE | {"network_class_name": "my_networks.Net"}
    folder = write_folder(tmp_path, architecture=own)
    info = describe_model(folder, trust=True)
    for refused in (lambda: describe_model(folder), lambda: load_networks(info)):
        with pytest.raises(ModelError, match=r"its network is my_networks\.Net, which can run any code"):
            refused()
    with pytest.raises(ModelError, match=r"needs my_networks\.Net, which cannot be imported"):
        load_networks(info, trust=True)

"""Against nnU-Net itself: a folder that nnunetv2 made and trained predicts what its own predictor predicts."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest

from nx47dask.errors import ModelError
from nx47dask.geometry import Box, WindowLattice
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.kernels.windows import blend_windows
from nx47dask.models import describe_model, load_networks
from tests.conftest import sheets
from tests.integration.nnunet_folder import PATCH_ZYX, train_folder
from tests.predictors import open_predictor

pytest.importorskip("nnunetv2", reason="nnU-Net makes the folder and the reference: pip install nnunetv2")

SHAPE = (30, 45, 41)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return train_folder(tmp_path_factory.mktemp("nnunet"), monkeypatch)


@pytest.fixture(scope="module")
def transposed(folder, tmp_path_factory):
    """The same weights, said to work on (X, Z, Y)."""
    copy = tmp_path_factory.mktemp("transposed") / folder.name
    shutil.copytree(folder, copy)
    plans = json.loads((copy / "plans.json").read_text())
    plans |= {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    (copy / "plans.json").write_text(json.dumps(plans))
    return copy


def theirs(folder, image, mirror, blend):
    """Probability of the surface by nnU-Net: its preprocessing, windows, weights, mirrors and folds."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_gaussian=blend == "gaussian", use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), None)
    spacing = {"spacing": [1.0, 1.0, 1.0]}
    _, probability = predictor.predict_single_npy_array(image[None].astype(np.float32), spacing, None, None, True)
    return probability[1]


def ours(folder, image, mirror, blend, backend):
    info = describe_model(folder, trust=True)
    predictor = open_predictor(info, device="cpu", backend=backend, batch=4, trust=True)
    axes = info.mirrors if mirror else ()
    whole = Box.of_shape(image.shape)
    return blend_windows(
        image,
        whole,
        whole,
        WindowLattice(image.shape, info.window_zyx, info.step_zyx, info.placement),
        predictor.run,
        normalise=info.normalisation.resolve(ScanStatistics.of_histogram(np.bincount(image.ravel(), minlength=256))),
        blend=blend,
        values=info.values,
        mirrors=tuple(chosen for n in range(1, len(axes) + 1) for chosen in itertools.combinations(axes, n)),
        batch=4,
    )


def test_the_folder_says_how_it_was_trained(folder):
    info = describe_model(folder, trust=True)
    assert info.window_zyx == PATCH_ZYX
    assert info.step_zyx == (8, 10, 12)
    assert (info.placement, info.values, info.activation) == ("even", "logit", "softmax")
    assert (info.classes, info.surface, info.members) == (2, 1, 2)  # the ignore label is no class
    assert info.mirrors == (0, 1, 2)
    assert info.normalisation.scheme == "zscore"
    assert not info.normalisation.nonzero


def test_a_checkpoint_of_nnunet_needs_trust(folder):
    with pytest.raises(ModelError, match=r"fold_0/checkpoint_final\.pth.*--trust"):
        describe_model(folder)
    with pytest.raises(ModelError, match="--trust"):
        load_networks(describe_model(folder, trust=True))


def their_weights(lattice):
    """Total of nnU-Net's Gaussian over the windows of a volume, in half precision as it adds it."""
    import torch
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    gaussian = compute_gaussian(lattice.window, value_scaling_factor=10, device=torch.device("cpu")).numpy()
    total = np.zeros(lattice.shape, np.float16)
    for window in lattice.touching(Box.of_shape(lattice.shape)):
        total[window.slices] += gaussian
    return total


@pytest.mark.parametrize(
    ("where", "mirror", "blend", "backend"),
    [
        ("folder", False, "gaussian", "torch"),
        ("folder", True, "gaussian", "torch"),
        ("folder", False, "constant", "auto"),  # OpenVINO where it is installed
        ("transposed", False, "gaussian", "torch"),
    ],
)
def test_predicts_as_nnunet_does(request, where, mirror, blend, backend):
    """Within one step of uint8 wherever nnU-Net's own sums hold.

    It adds up in half precision. Near the edges of the volume every Gaussian is so small that a weight has a few binary
    digits or one; there its result is off by tens of steps from its own formula in double precision.
    """
    model, image = request.getfixturevalue(where), sheets(SHAPE, seed=5)
    expected, found = theirs(model, image, mirror, blend), ours(model, image, mirror, blend, backend)
    assert np.ptp(expected) > 0.5  # it learnt something, so that a wrong window would show
    steps = np.abs(np.rint(expected * 255) - np.rint(found * 255))
    if blend == "gaussian":
        info = describe_model(model, trust=True)
        total = their_weights(WindowLattice(SHAPE, info.window_zyx, info.step_zyx, info.placement))
        holds = total >= 4 * np.finfo(np.float16).smallest_normal
        assert holds.mean() > 0.9
        assert np.mean(steps <= 1) > 0.98
        steps = steps[holds]
    assert steps.max() <= 1


def test_the_window_of_a_transposed_folder_is_in_the_order_of_the_volume(transposed):
    x, z, y = PATCH_ZYX
    assert describe_model(transposed, trust=True).window_zyx == (z, y, x)

"""Training of the default model: volumes, augmentation, loss, and a loop that goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from nx47dask.errors import InputError
from training.augment import draw_batch, draw_patch
from training.loop import Schedule, train
from training.losses import surface_loss
from training.volumes import SKELETON, TrainingVolume, medial_surface, phantom_volumes, read_volumes


def one_sided_sheet(n: int = 48) -> TrainingVolume:
    """A bowl-shaped sheet, bright throughout; the target is its concave side."""
    z, y, x = np.indices((n, n, n), dtype=np.float64)
    height = z - n * 0.3 - ((y - n / 2) ** 2 + (x - n / 2) ** 2) / (2.5 * n)
    image = np.where((height > 0) & (height < 8), 200, 60).astype(np.uint8)
    label = ((height > 5) & (height < 8)).astype(np.uint8)
    return TrainingVolume.of("bowl", image, label)


def test_the_medial_surface_is_the_middle_of_a_sheet():
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6] = True
    middle = medial_surface(mask)
    assert middle[4, 2:7, 2:7].all()
    assert not middle[3, 2:7, 2:7].any()
    assert not middle[5, 2:7, 2:7].any()


def test_statistics_leave_out_the_mask_of_a_scan():
    image = np.zeros((8, 8, 8), np.uint8)
    image[4:] = 100
    image[5:] = 120
    volume = TrainingVolume.of("masked", image, np.zeros((8, 8, 8), np.uint8))
    assert volume.normalise.shift == pytest.approx(115)
    assert volume.normalise.scale == pytest.approx(np.std([100] * 64 + [120] * 192))


@pytest.mark.parametrize("seed", range(12))
def test_augmentation_keeps_the_target_on_the_same_side_of_the_sheet(seed):
    volume = one_sided_sheet()
    image, target = (a.numpy()[0] for a in draw_patch(volume, 32, np.random.default_rng(seed)))
    assert image.shape == target.shape == (32, 32, 32)
    assert np.isfinite(image).all()
    assert set(np.unique(target)) <= {0, 1, 2, 3}
    surface = (target & 1).astype(bool)
    if surface.sum() < 200:
        pytest.skip("too little of the sheet in this patch")
    known = target != 2
    # On its own side of the sheet the target borders on air, on the other on papyrus.
    around = np.zeros_like(surface)
    for axis in range(3):
        for by in (-2, 2):
            around |= np.roll(surface, by, axis)
    rim = image[around & ~surface & known]
    assert rim.min() < image[surface].mean() - 0.5
    assert rim.max() > image[surface].mean() - 0.5


def test_the_same_draw_gives_the_same_batch():
    volumes = [one_sided_sheet(), one_sided_sheet(40)]
    first, again = (draw_batch(volumes, [1, 3], 32, 2, np.random.default_rng([5, 7])) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[0].shape == first[1].shape == (2, 1, 32, 32, 32)


def test_ignored_voxels_do_not_count_in_the_loss():
    target = torch.tensor([0, 1, 3, 2]).to(torch.uint8).reshape(1, 1, 1, 1, 4)
    logits = torch.tensor([-2.0, 1.0, 0.5, 3.0]).reshape(target.shape)
    changed = logits.clone()
    changed[..., 3] = -9
    assert torch.equal(surface_loss(logits, target), surface_loss(changed, target))
    changed[..., 2] = -9
    assert surface_loss(changed, target) > surface_loss(logits, target)


def test_a_right_answer_costs_nothing_and_a_lost_middle_more_than_a_lost_edge():
    target = torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8)
    target[:, :, 2:5] = 1
    target[:, :, 3] = SKELETON
    right = torch.where((target & 1) != 0, 20.0, -20.0)
    assert surface_loss(right, target) < 0.01
    no_edge, no_middle = right.clone(), right.clone()
    no_edge[:, :, 2], no_middle[:, :, 3] = -20, -20
    assert surface_loss(no_middle, target) > surface_loss(no_edge, target) > 1


def test_training_goes_on_from_its_checkpoint_to_the_same_weights(tmp_path):
    def network():
        torch.manual_seed(3)
        return nn.Conv3d(1, 1, 3, padding=1)

    volumes, schedule = [one_sided_sheet(32)], Schedule(steps=6, edge_vox=16, batch=1, parts=2)
    straight = train(network(), volumes, [1], schedule, tmp_path / "straight.pt")

    class StoppedError(Exception):
        pass

    def stop(step, loss):
        assert loss > 0
        if step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(network(), volumes, [1], schedule, tmp_path / "resumed.pt", save_every=2, report=stop)
    steps = []
    resumed = train(
        network(), volumes, [1], schedule, tmp_path / "resumed.pt", report=lambda step, loss: steps.append(step)
    )
    assert steps == [4, 5]
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match=r"resumed\.pt: belongs to"):
        train(network(), volumes, [1], Schedule(steps=7, edge_vox=16, batch=1, parts=2), tmp_path / "resumed.pt")


def test_phantoms_differ_and_can_be_made_again():
    first, second = phantom_volumes(2, (24, 48, 48), 11)
    again = phantom_volumes(1, (24, 48, 48), 12)[0]
    assert first.normalise != second.normalise
    assert np.array_equal(second.image, again.image)
    assert np.array_equal(second.target, again.target)


def test_a_dataset_is_read_but_for_what_is_left_out(tmp_path):
    for number in range(2):
        for folder, values in (("train_images", 90), ("train_labels", number)):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(
                tmp_path / folder / f"v{number}.tif", np.full((5, 8, 8), values, np.uint8), photometric="minisblack"
            )
    assert [volume.id for volume in read_volumes(tmp_path)] == ["v0", "v1"]
    assert [volume.id for volume in read_volumes(tmp_path, ["v0"])] == ["v1"]
    with pytest.raises(InputError, match=r"--leave-out v7: .* has v0, v1"):
        read_volumes(tmp_path, ["v7"])
    (tmp_path / "train_labels" / "v1.tif").unlink()
    with pytest.raises(InputError, match=r"no label for v1; add v1\.tif"):
        read_volumes(tmp_path)

"""Inference over overlapping windows: exact under any cut, equal to MONAI, and to the plain sums it stands for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from nx47dask.errors import InputError
from nx47dask.geometry import Box, WindowLattice
from nx47dask.kernels.blending import window_weights
from nx47dask.kernels.normalisation import Ramp
from nx47dask.kernels.windows import blend_windows, occupied_cells, read_box, variants

NORMALISE = Ramp(-math.inf, math.inf, 120, 50, False)
FLIPS = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))


def volume(shape, seed=0, dtype=np.uint8):
    """Noise with an empty half, so that some cells and windows are empty."""
    image = np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)
    image[:, shape[1] // 2 :, : shape[2] // 2] = 0
    return image


class Network:
    """Answers that depend on the whole window and on the place in it; counts what it is given."""

    def __init__(self):
        self.batches = 0

    def __call__(self, batches):
        for batch in batches:
            self.batches += 1
            yield np.stack([self.answer(window) for window in batch[:, 0]])

    @staticmethod
    def answer(window):
        z, y, x = np.indices(window.shape, dtype=np.float32)
        ramp = np.sin(z * np.float32(0.7) + y * np.float32(0.3) - x) + window.max() - window[0, 0, 0]
        return (np.tanh(window + ramp) * np.float32(0.49) + np.float32(0.5)).astype(np.float32)


def blended(image, lattice, core=None, *, level=None, run=None, **options):
    core = core or Box.of_shape(image.shape)
    outer = read_box(lattice, core)
    read = image[outer.slices]
    occupied = None if level is None else occupied_cells(read, outer, level)
    options.setdefault("normalise", NORMALISE)
    return blend_windows(read, outer, core, lattice, run or Network(), occupied=occupied, **options)


def plain(image, lattice, ways, blend, values):
    """The same with one padded volume and sums in float64."""
    starts = [axis[0] for axis in lattice.starts]
    pads = [(max(0, -a), max(0, a + w - n)) for a, w, n in zip(starts, lattice.window, image.shape, strict=True)]
    padded = np.pad(image, pads, mode="symmetric")
    sums, totals = np.zeros(padded.shape), np.zeros(padded.shape)
    weights = window_weights(lattice.window, blend, lattice.placement).astype(np.float64)
    for window in lattice.touching(Box.of_shape(image.shape)):
        at = window.shift(tuple(low for low, _ in pads)).slices
        for axes, turns in ways:
            shown = np.rot90(np.flip(NORMALISE(padded[at]), axes), turns, (1, 2))
            answer = np.flip(np.rot90(Network.answer(shown), -turns, (1, 2)), axes)
            sums[at] += weights * (answer if values == "probability" else logit(answer.astype(np.float64)))
            totals[at] += weights
    mean = (sums / totals)[tuple(slice(low, low + n) for (low, _), n in zip(pads, image.shape, strict=True))]
    return mean if values == "probability" else expit(mean)


class Logits(Network):
    """The same as logits."""

    def __call__(self, batches):
        for answer in super().__call__(batches):
            yield logit(answer.astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("values", ["probability", "logit"])
@pytest.mark.parametrize("placement", ["flush", "even"])
@pytest.mark.parametrize(
    ("shape", "window", "step"),
    [
        ((21, 20, 26), (8, 12, 12), (4, 6, 9)),
        ((17, 18, 14), (8, 8, 8), (2, 3, 2)),  # more than 27 windows over a voxel
        ((3, 20, 1), (8, 12, 12), (4, 6, 6)),  # smaller than a window, one voxel too
    ],
)
def test_it_is_the_weighted_mean(shape, window, step, placement, values):
    image, lattice = volume(shape), WindowLattice(shape, window, step, placement)
    found = blended(image, lattice, values=values, run=(Network if values == "probability" else Logits)())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain(image, lattice, [((), 0)], "gaussian", values), atol=5e-6)


@pytest.mark.parametrize(
    ("mirrors", "rotations", "count"),
    [((), (), 1), (((2,),), (), 2), (FLIPS, (), 8), ((), (1, 2, 3), 4), (FLIPS, (1, 2, 3), 16)],
)
def test_variants_are_undone_and_averaged(mirrors, rotations, count):
    image, lattice = volume((14, 16, 20)), WindowLattice((14, 16, 20), (8, 10, 10), (4, 6, 10), "even")
    ways = variants(mirrors, rotations)
    assert len(ways) == count
    assert ways[0] == ((), 0)
    pairs = list(itertools.product(((), *mirrors), (0, *rotations)))
    found = blended(image, lattice, mirrors=mirrors, rotations=rotations, batch=3, blend="constant")
    np.testing.assert_allclose(found, plain(image, lattice, pairs, "constant", "probability"), atol=5e-6)


CASE = WindowLattice((37, 33, 45), (12, 8, 16), (6, 5, 8))
IMAGE = volume(CASE.shape)
WHOLE = blended(IMAGE, CASE, level=0, skip=False)


@st.composite
def cores(draw):
    starts = [draw(st.integers(0, n - 1)) for n in CASE.shape]
    stops = [draw(st.integers(a + 1, min(n, a + 24))) for a, n in zip(starts, CASE.shape, strict=True)]
    return Box(tuple(starts), tuple(stops))


@settings(max_examples=40)
@given(cores(), st.integers(1, 5), st.booleans())
def test_any_core_is_the_crop_of_the_whole(core, batch, skip):
    found = blended(IMAGE, CASE, core, level=0, batch=batch, skip=skip)
    assert found.tobytes() == WHOLE[core.slices].tobytes()


def test_skipping_saves_windows_and_changes_nothing():
    every, some = Network(), Network()
    whole = blended(IMAGE, CASE, level=0, skip=False, run=every)
    assert blended(IMAGE, CASE, level=0, run=some).tobytes() == whole.tobytes()
    assert some.batches < every.batches == len(CASE)
    cells = occupied_cells(IMAGE, Box.of_shape(CASE.shape), 0)
    voxels = cells.repeat(8, 0).repeat(8, 1).repeat(8, 2)[tuple(map(slice, CASE.shape))]
    assert 0 < voxels.mean() < 1
    assert not whole[~voxels].any()
    assert whole[voxels].tobytes() == blended(IMAGE, CASE)[voxels].tobytes()


def test_an_empty_block_runs_nothing():
    network = Network()
    found = blended(np.zeros(CASE.shape, np.uint8), CASE, level=0, run=network)
    assert not found.any()
    assert network.batches == 0


def test_batches_are_fixed_and_the_last_is_filled():
    seen = []

    def run(batches):
        for batch in batches:
            seen.append(batch)
            yield Network.answer(batch[:, 0].reshape(-1, *batch.shape[3:])).reshape(batch[:, 0].shape)

    lattice = WindowLattice((12, 8, 40), (12, 8, 16), (6, 5, 8))
    blended(IMAGE[:12, :8, :40], lattice, run=run, batch=3)
    assert [batch.shape for batch in seen] == [(3, 1, 12, 8, 16)] * 2
    np.testing.assert_array_equal(seen[1][2], seen[1][0])
    assert seen[0].dtype == np.float32


@given(cores(), st.integers(0, 250))
def test_occupied_cells_are_those_with_a_voxel_above_the_level(box, level):
    found = occupied_cells(IMAGE[box.slices], box, level)
    voxels = np.zeros([-(-n // 8) * 8 for n in CASE.shape], bool)
    voxels[box.slices] = IMAGE[box.slices] > level
    depth, height, width = (n // 8 for n in voxels.shape)
    cells = voxels.reshape(depth, 8, height, 8, width, 8).any(axis=(1, 3, 5))
    around = tuple(slice(a // 8, -(-b // 8)) for a, b in zip(box.start, box.stop, strict=True))
    np.testing.assert_array_equal(found, cells[around])


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="not square"):
        blended(IMAGE, CASE, rotations=(1,))
    dense = WindowLattice((64, 64, 64), (32, 32, 32), (1, 1, 1))
    with pytest.raises(InputError, match="choose a larger step"):
        blended(np.zeros((64, 64, 64), np.uint8), dense, Box((0, 0, 0), (1, 1, 1)))


@pytest.fixture(scope="module")
def torch_network():
    """Fixed random weights, answers spread from 0 to 1, and each depends on its whole window."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    torch.set_num_threads(1)
    layers = torch.nn.Sequential(
        torch.nn.Conv3d(1, 6, 5, padding=2),
        torch.nn.InstanceNorm3d(6),
        torch.nn.ReLU(),
        torch.nn.Conv3d(6, 1, 3, padding=1),
    ).eval()
    with torch.no_grad():
        layers[-1].weight *= 12
    return layers


@pytest.mark.parametrize("values", ["probability", "logit"])
@pytest.mark.parametrize("overlap", [0.5, 0.25])
@pytest.mark.parametrize(
    ("window", "blend"), [((16, 16, 16), "gaussian"), ((24, 20, 16), "gaussian"), ((24,) * 3, "constant")]
)
def test_monai_agrees(torch_network, window, blend, overlap, values):
    torch = pytest.importorskip("torch")
    inferers = pytest.importorskip("monai.inferers")
    image = np.random.default_rng(1).integers(0, 256, (48, 47, 50), dtype=np.uint8)
    last = torch.nn.Sigmoid() if values == "probability" else torch.nn.Identity()

    def run(batches):
        for batch in batches:
            yield last(torch_network(torch.from_numpy(batch)))[:, 0].numpy()

    lattice = WindowLattice(image.shape, window, tuple(int(w * (1 - overlap)) for w in window))
    with torch.no_grad():
        found = blended(image, lattice, run=run, blend=blend, values=values, batch=2)
        whole = torch.from_numpy(NORMALISE(image))[None, None]
        theirs = inferers.sliding_window_inference(
            whole, window, 2, lambda x: last(torch_network(x)), overlap, mode=blend
        )
    expected = (theirs if values == "probability" else theirs.sigmoid())[0, 0].numpy()
    assert expected.std() > 0.25
    steps = np.abs(np.rint(found * 255) - np.rint(expected * 255))
    assert (steps <= 1).mean() >= 0.999
    assert steps.max() <= 2
    assert np.abs(found - expected).max() < 1e-3


def test_nnunet_agrees(torch_network):
    """Its sums (predict_from_raw_data.py) are in 16 bits, so both are compared in 32, and with 16 more loosely."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    image = np.random.default_rng(1).integers(0, 256, (40, 47, 50), dtype=np.uint8)
    window = (16, 24, 16)
    whole = torch.from_numpy(NORMALISE(image))[None, None]

    def run(batches):
        for batch in batches:
            yield torch_network(torch.from_numpy(batch))[:, 0].numpy()

    def blend(dtype):
        weights = theirs.compute_gaussian(window, 1 / 8, 10, dtype, torch.device("cpu"))
        sums, totals = torch.zeros(image.shape, dtype=dtype), torch.zeros(image.shape, dtype=dtype)
        for start in itertools.product(*theirs.compute_steps_for_sliding_window(image.shape, window, 0.5)):
            at = tuple(slice(a, a + w) for a, w in zip(start, window, strict=True))
            sums[at] += torch_network(whole[(..., *at)])[0, 0].to(dtype) * weights
            totals[at] += weights
        return (sums.float() / totals.float()).sigmoid().numpy()

    with torch.no_grad():
        lattice = WindowLattice(image.shape, window, (8, 12, 8), "even")
        found = blended(image, lattice, run=run, values="logit")
        wide, narrow = blend(torch.float32), blend(torch.float16)
    assert np.abs(found - wide).max() < 2 / 255
    assert (np.abs(found - narrow) <= 1 / 255).mean() >= 0.99

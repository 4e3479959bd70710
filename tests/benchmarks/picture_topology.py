"""What each post-processing step changes: a picture of planted defects in the sheets of a synthetic scroll.

::

    python -m tests.benchmarks.picture_topology docs/topology.png [--workflow surface] [--then patch_holes]

Above and below: before and after a step, in the slice and the window where it changes most. Probabilities are grey;
of masks, white stays, orange comes, blue goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from nx47dask.geometry import Box
from nx47dask.phantom.render import Phantom, render
from nx47dask.steps import STEPS
from nx47dask.steps.passes import NamedStep, compile_passes
from nx47dask.steps.whole import whole_mask
from nx47dask.workflow import load_workflow
from tests.planted import Recipe, blurred, plant

BOX = Box((0, 60, 60), (128, 316, 316))
PHANTOM = Phantom((128, 768, 768), seed=3, spacing_vox=14, surface_vox=3.5)
WINDOW, ZOOM, GAP, TEXT = 44, 4, 8, 24
ADDED, REMOVED, KEPT, NOTHING = (240, 140, 30), (80, 150, 250), (235, 235, 235), (24, 24, 28)
BACKGROUND = (255, 255, 255)

Volume = NDArray[np.unsignedinteger]


def make_probability() -> Volume:
    """Sheets with holes, bridges and specks, as a noisy probability."""
    sheets = cc3d.connected_components(render(PHANTOM, BOX)[1] == 1, connectivity=26)
    planted = plant(sheets, Recipe(holes=120, bridges=60, specks=120))
    return blurred(planted.mask, noise=0.15)


def changes(steps: list[NamedStep], probability: Volume) -> Iterator[tuple[str, Volume, Volume]]:
    """The name of every step, and what there is before and after it."""
    before = probability
    for count, one in enumerate(steps, start=1):
        if one.step.gives == "probability":
            after = one.step.apply(before, None)
        else:
            after = whole_mask(compile_passes(steps[:count]), probability, None)
        yield one.name.partition("#")[0], before, after
        before = after


def place_of(before: Volume, after: Volume, threshold: int) -> tuple[int, int, int]:
    """Start of the window of a slice in which most changes sides of a threshold."""
    changed = (before >= threshold) != (after >= threshold)
    near = ndimage.gaussian_filter(changed.astype(np.float32), (0, WINDOW / 6, WINDOW / 6), mode="constant")
    half = WINDOW // 2
    inner = near[:, half:-half, half:-half]
    z, y, x = np.unravel_index(inner.argmax(), inner.shape)
    return int(z), int(y), int(x)


def tile(before: Volume, after: Volume, shown: Volume) -> Image.Image:
    """A slice of a probability in grey, or of a mask in the colours of its changes."""
    if shown.max() > 1:
        rgb = np.repeat(shown[..., None], 3, axis=2)
    else:
        rgb = np.full((*shown.shape, 3), NOTHING, np.uint8)
        rgb[shown != 0] = KEPT
        if before.max() <= 1:
            rgb[(before != 0) & (after == 0) & (shown != 0)] = REMOVED
            rgb[(before == 0) & (after != 0) & (shown != 0)] = ADDED
    return Image.fromarray(rgb).resize((WINDOW * ZOOM,) * 2, Image.Resampling.NEAREST)


def draw(steps: list[NamedStep], probability: Volume) -> Image.Image:
    """The picture: a column for every step that changes something."""
    edge = WINDOW * ZOOM
    columns = [one for one in changes(steps, probability) if not np.array_equal(one[1], one[2])]
    size = (len(columns) * (edge + GAP) + GAP, TEXT + 2 * (edge + GAP))
    picture = Image.new("RGB", size, BACKGROUND)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for number, (name, before, after) in enumerate(columns):
        left = GAP + number * (edge + GAP)
        z, y, x = place_of(before, after, 128 if before.max() > 1 else 1)
        window = (z, slice(y, y + WINDOW), slice(x, x + WINDOW))
        pen.text((left, 4), f"{number + 1}  {name}", fill=(0, 0, 0), font=font)
        for row, shown in enumerate((before, after)):
            picture.paste(tile(before[window], after[window], shown[window]), (left, TEXT + row * (edge + GAP)))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--workflow", default="surface")
    parser.add_argument("--then", nargs="*", default=[], help="steps with their usual values, after the workflow's")
    options = parser.parse_args()
    steps = [*load_workflow(options.workflow).steps, *(NamedStep(name, STEPS[name]()) for name in options.then)]
    draw(steps, make_probability()).save(options.picture, optimize=True)


if __name__ == "__main__":
    main()

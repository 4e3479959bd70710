"""The main job on a whole volume in memory, written with scipy and scikit-image: what any cut must equal."""

from __future__ import annotations

import csv
import io

import numpy as np
from scipy import ndimage
from skimage.measure import euler_number

from nx47dask.detectors import ResidualBand, quantise
from nx47dask.geometry import Box
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.steps import STEPS

FULL = {6: 1, 18: 2, 26: 3}


def structure(connectivity, per_slice):
    element = ndimage.generate_binary_structure(3, FULL[connectivity])
    if per_slice:
        element[[0, 2]] = False
    return element


def element(radius, shape):
    grids = np.meshgrid(*[np.arange(-r, r + 1) for r in radius], indexing="ij")
    inside = sum((g / r) ** 2 if r else g * 0.0 for g, r in zip(grids, radius, strict=True)) <= 1 + 1e-9
    return np.ones_like(inside) if shape == "box" else inside


def closing(mask, radius, shape):
    footprint = element(radius, shape)
    return ndimage.binary_erosion(ndimage.binary_dilation(mask, footprint), footprint, border_value=1)


def opening(mask, radius, shape):
    footprint = element(radius, shape)
    return ndimage.binary_dilation(ndimage.binary_erosion(mask, footprint, border_value=1), footprint)


def levels(probability, thresholds, by):
    """Lowest stored value that counts, per slice and threshold."""
    if by == "value":
        return [[np.ceil(t * np.iinfo(probability.dtype).max) for t in thresholds]] * len(probability)
    parts = probability if by == "slice" else [probability] * len(probability)
    return [[np.quantile(p, t, method="inverted_cdf") + 1 for t in thresholds] for p in parts]


def binarise(probability, thresholds, by):
    table = np.array(levels(probability, thresholds, by))
    return [probability >= column[:, None, None] for column in table.T]


def hysteresis(probability, low, high, by, connectivity, per_slice):
    weak, strong = binarise(probability, (low, high), by)
    labels, number = ndimage.label(weak, structure(connectivity, per_slice))
    keep = np.zeros(number + 1, dtype=bool)
    keep[np.unique(labels[strong & weak])] = True
    keep[0] = False
    return keep[labels]


def near_border(shape, width_zyx):
    """Voxels within so many of the ends of each axis."""
    inside = np.ones(shape, dtype=bool)
    for axis, width in enumerate(width_zyx):
        place = np.arange(shape[axis])
        inside &= np.expand_dims((place >= width) & (place < shape[axis] - width), [i for i in range(3) if i != axis])
    return ~inside


def small_objects(mask, min_vox, border_min_vox, connectivity, per_slice):
    labels, _ = ndimage.label(mask, structure(connectivity, per_slice))
    sizes = np.bincount(labels.ravel())
    keep = sizes >= min_vox
    if border_min_vox is not None:
        cut = np.unique(labels[near_border(mask.shape, (not per_slice, 1, 1))])
        keep[cut] |= sizes[cut] >= border_min_vox
    keep[0] = False
    return keep[labels]


def fill_holes(mask, max_vox, connectivity, per_slice):
    labels, number = ndimage.label(~mask, structure(connectivity, per_slice))
    fill = np.ones(number + 1, dtype=bool)
    fill[np.unique(labels[near_border(mask.shape, (not per_slice, 1, 1))])] = False
    fill[0] = False
    if max_vox is not None:
        fill &= np.bincount(labels.ravel(), minlength=number + 1) <= max_vox
    return mask | fill[labels]


def clear_border(mask, width_zyx_vox):
    return mask & ~near_border(mask.shape, width_zyx_vox)


def z_coherence(mask, window_vox, rule, least, reach_vox):
    out = mask.copy()
    near = ndimage.binary_dilation(mask, element((0, reach_vox, reach_vox), "box"))
    for z in range(len(mask)):
        others = [i for i in range(z - window_vox, z + window_vox + 1) if 0 <= i < len(mask) and i != z]
        if rule == "support":
            votes = near[others].sum(axis=0)
            out[z] = mask[z] & (votes >= min(least, len(others)))
        else:
            votes = mask[[*others, z]].sum(axis=0) * 2
            total = len(others) + 1
            out[z] = (votes > total) | ((votes == total) & mask[z])
    return out


def smooth(probability, sigma_zyx_vox):
    blurred = ndimage.gaussian_filter(probability, sigma_zyx_vox, output=np.float32, truncate=4.0)
    return np.rint(blurred).astype(probability.dtype)


def support(probability, image, level, radius_vox):
    return np.where(closing(image > level, (radius_vox,) * 3, "box"), probability, 0).astype(probability.dtype)


def detect(image, detector):
    scan = ScanStatistics.of_histogram(np.bincount(image.ravel()))
    if isinstance(detector, ResidualBand):
        thresholds = detector.slice_thresholds(image, 0, len(image), scan)
        return detector.band(image, scan, thresholds) * np.uint8(255)
    volume = Box.of_shape(image.shape)
    return quantise(detector.probability(image, volume, volume, volume, scan))


CHECKED = {name: STEPS[name] for name in ("smooth_sheet", "plug_pinholes", "patch_holes", "thin", "thicken")}
"""Steps whose kernels have references in tests of their own; here they run on the whole volume."""


def postprocess(probability, image, steps):
    """Run resolved steps (name, parameters) on a whole volume."""
    data = probability
    for name, parameters in steps:
        kind = name.split("#")[0]
        if kind == "support":
            data = support(data, image, **parameters)
        elif kind == "smooth":
            data = smooth(data, **parameters)
        elif kind == "threshold":
            data = binarise(data, (parameters["value"],), parameters["by"])[0]
        elif kind in ("closing", "opening"):
            data = globals()[kind](data, parameters["radius_zyx_vox"], parameters["shape"])
        elif kind in CHECKED:
            data = CHECKED[kind](**parameters).apply(data.view(np.uint8) if data.dtype == bool else data, None)
            data = data if CHECKED[kind].gives == "probability" else data != 0
        else:
            data = globals()[kind](data, **parameters)
    return data


def run(image, workflow):
    """Mask of a whole volume by a resolved workflow."""
    steps = [next(iter(item.items())) for item in workflow.resolved["postprocess"]]
    return postprocess(detect(image, workflow.bind_detector()), image, steps)


def slices_csv(volume, mask):
    """Rows of ``slices.csv`` from their definitions."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    for z, plane in enumerate(mask):
        before = mask[z - 1] if z else plane
        total = int(plane.sum() + before.sum())
        dice = "" if z == 0 else f"{2 * int((plane & before).sum()) / total:.6f}" if total else "1.000000"
        components = ndimage.label(plane, np.ones((3, 3)))[1]
        holes = ndimage.label(np.pad(~plane, 1, constant_values=True))[1] - 1
        padded = np.pad(plane, 1).astype(int)
        perimeter = int(np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum())
        write([volume, z, int(plane.sum()), f"{plane.mean():.6f}", dice, components, holes, perimeter])
    return text.getvalue()


def volume_metrics(mask):
    """The mask's entry in ``volumes.json`` from its definitions."""
    labels, number = ndimage.label(mask, structure(26, False))
    cavities = ndimage.label(np.pad(~mask, 1, constant_values=True))[1] - 1
    euler = euler_number(mask, connectivity=3)
    sizes = sorted(np.bincount(labels.ravel())[1:].tolist(), reverse=True)[:10]
    return {
        "voxels": int(mask.sum()),
        "density": int(mask.sum()) / mask.size,
        "components_26": number,
        "largest_components_vox": sizes,
        "betti": [number, number + cavities - euler, cavities],
    }

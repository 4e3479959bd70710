"""Plate-likeness of bright sheets from the Hessian, and the choice of a sheet's written face; in torch.

Results are exact under cropping, bit for bit, for a given device and software version. So there is no convolution call
and no transcendental function: their vectorised bodies and scalar tails differ in the last bit, as do fused
multiply-adds. There are only shifts and element-wise +, -, *, /, sqrt, min, max and round, which IEEE 754 rounds
correctly, in a fixed order, and sums of whole numbers, which do not depend on order. A block's edge counts as an edge
of the volume and is replicated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

__all__ = ["SIDE_DILATION", "box_sum", "plate_probability", "ridge", "smooth"]

SIDE_DILATION = 2  # of the last smoothing, which gives the gradient of the side rule
_CACHED_VOXELS = 1 << 16  # a slab of this size and its dozen temporaries stay in a CPU's cache
_LARGEST_RIM = 128  # largest strength times drop, in units of their contrasts, before whole numbers saturate
_TINY = 1e-12


def smooth(volume: Tensor, dilation: int) -> Tensor:
    """Smooth by the binomial filter [1, 4, 6, 4, 1] / 16 along each axis, with holes between the taps.

    Its variance is ``dilation²`` and its radius ``2 dilation``.

    Parameters
    ----------
    volume : Tensor of float32, (Z, Y, X)
    dilation : int
        Distance between taps in voxels: 1, 2, 4, ... repeat to build an à-trous cascade.

    Notes
    -----
    Holschneider et al. (1989), "A real-time algorithm for signal analysis with the help of the wavelet transform".
    """
    for axis in range(3):
        volume = _smooth_axis(volume, axis, dilation)
    return volume


def ridge(padded: Tensor) -> Tensor:
    """Compute the ridge strength ``max(0, a1 - max(|a2|, |a3|))``: a bright plate curves more across than along.

    ``a1 >= a2 >= a3`` are the eigenvalues of the negated Hessian by central differences (radius 1). They have a closed
    form, except for a root of a cubic, which takes a fixed number of iterations.

    Parameters
    ----------
    padded : Tensor of float32, (Z + 2, Y + 2, X + 2)

    Returns
    -------
    Tensor of float32, (Z, Y, X)
        Ridge strength in grey values per voxel².

    Notes
    -----
    Sato et al. (2000), "Tissue classification based on 3D local intensity structures".
    """
    first, middle, last = _eigenvalues(*_negated_hessian(padded))
    return first.sub_(middle.abs_().maximum(last.abs_())).clamp_(min=0)


def box_sum(field: Tensor, radius_vox: int) -> Tensor:
    """Sum over a box around each voxel, cut at the volume's edge; modulo 2³², so only the result must fit.

    Parameters
    ----------
    field : Tensor of int32, (Z, Y, X)
    radius_vox : int
        Half width of the box, of edge ``2 radius_vox + 1``.
    """
    for axis in range(3):
        field = _box_sum_axis(field, axis, radius_vox)
    return field


def plate_probability(
    volume: Tensor, scales: tuple[int, ...], contrast: float, side_radius_vox: int, side_contrast: float
) -> Tensor:
    """Compute the probability of the inner, written face of bright sheets.

    The strongest `ridge` over the scales, S, gives ``S / (S + contrast)``: sheets have a bright rim on both faces.
    With a side radius, grey values identify the written face: its rim is brighter and drops more steeply, so
    ``-S gradient``, summed over a box that holds several sheets, points out of the written faces. A voxel whose grey
    values fall in that direction by ``side_contrast`` per voxel or more keeps its probability; a voxel whose values do
    not fall gets 0.

    Parameters
    ----------
    volume : Tensor of float32, (Z, Y, X)
        Grey values in units of the volume's standard deviation.
    scales : tuple of int
        Dilations of the smoothing steps; ridges are taken after each step.
    contrast : float
        Ridge strength that gives probability 0.5.
    side_radius_vox : int
        Radius of the box; 0 keeps both faces.
    side_contrast : float
        Fall of the grey values per voxel that keeps the whole probability.

    Returns
    -------
    Tensor of float32, (Z, Y, X), in [0, 1]
    """
    import torch

    strength = torch.zeros_like(volume)
    for dilation in scales:
        volume = smooth(volume, dilation)
        padded = _padded(volume)
        for slab in _slabs(volume):
            torch.maximum(strength[slab], ridge(padded[_with_context(slab)]), out=strength[slab])
    if side_radius_vox:
        _keep_inner_face(strength, smooth(volume, SIDE_DILATION), contrast, side_radius_vox, side_contrast)
    for slab in _slabs(strength):
        part = strength[slab]
        part.div_(part + contrast)
    return strength


def _keep_inner_face(
    strength: Tensor, volume: Tensor, contrast: float, side_radius_vox: int, side_contrast: float
) -> None:
    """Multiply the strength in place by 0 to 1: the fall of grey values towards the inner face."""
    import torch

    largest = (2**31 - 1) // (2 * side_radius_vox + 1) ** 3
    padded = _padded(volume)
    fields = [torch.empty(volume.shape, dtype=torch.int32, device=volume.device) for _ in range(3)]
    for slab in _slabs(volume):
        weight = strength[slab].mul(largest / (_LARGEST_RIM * contrast * side_contrast))
        for field, fall in zip(fields, _fall(padded[_with_context(slab)]), strict=True):
            field[slab] = fall.mul_(weight).round_().clamp_(-largest, largest)
    sums = [box_sum(field, side_radius_vox) for field in fields]
    for slab in _slabs(volume):
        outward = [field[slab].to(torch.float32) for field in sums]
        norm = _dot(outward, outward).add_(_TINY).sqrt_()
        fall = _dot(_fall(padded[_with_context(slab)]), outward).div_(norm)
        strength[slab] *= fall.div_(side_contrast).clamp_(0, 1)


def _smooth_axis(volume: Tensor, axis: int, dilation: int) -> Tensor:
    n = volume.shape[axis]
    padded = _padded_axis(volume, axis, 2 * dilation)
    taps = [padded.narrow(axis, i * dilation, n) for i in range(5)]
    result = volume.new_empty(volume.shape)
    for slab in _slabs(volume):
        a, b, c, d, e = (tap[slab] for tap in taps)
        part = b.add(d).mul_(4)
        result[slab] = part.add_(a.add(e)).add_(c.mul(6)).mul_(1 / 16)
    return result


def _box_sum_axis(field: Tensor, axis: int, radius_vox: int) -> Tensor:
    import torch

    n = field.shape[axis]
    running = torch.cumsum(field, axis, dtype=torch.int32)
    below, above = min(radius_vox + 1, n), min(radius_vox, n - 1)
    result = torch.empty_like(running)
    result.narrow(axis, 0, n - above).copy_(running.narrow(axis, above, n - above))
    result.narrow(axis, n - above, above).copy_(running.narrow(axis, n - 1, 1).expand(_resized(field, axis, above)))
    result.narrow(axis, below, n - below).sub_(running.narrow(axis, 0, n - below))
    return result


def _negated_hessian(p: Tensor) -> tuple[Tensor, ...]:
    """Compute ``zz, yy, xx, zy, zx, yx`` of the negated Hessian."""
    centre = _shifted(p, 0, 0, 0).mul(2)
    diagonal = [centre.sub(_at(p, axis, 1).add(_at(p, axis, -1))) for axis in range(3)]
    mixed = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        same = _at(p, a, 1, b, 1).add(_at(p, a, -1, b, -1))
        cross = _at(p, a, 1, b, -1).add(_at(p, a, -1, b, 1))
        mixed.append(cross.sub_(same).mul_(0.25))
    return (*diagonal, *mixed)


def _eigenvalues(
    zz: Tensor, yy: Tensor, xx: Tensor, zy: Tensor, zx: Tensor, yx: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the eigenvalues of symmetric 3 x 3 matrices, largest first.

    After shift and scaling they are the roots of ``y³ - 3 y = 2 r`` with r in [-1, 1]. For the largest,
    ``y = 1 + x`` with ``x = sqrt(2 (1 + r) / (3 + x))``, a contraction by 1/8 or less a step.
    """
    mean = zz.add(yy).add_(xx).mul_(1 / 3)
    a, b, c = zz.sub_(mean), yy.sub_(mean), xx.sub_(mean)
    off = zy.square().add_(zx.square()).add_(yx.square()).mul_(2)
    size = a.square().add_(b.square()).add_(c.square()).add_(off).mul_(1 / 6).add_(_TINY).sqrt_()
    det = b.mul(c).sub_(yx.square()).mul_(a)
    det.sub_(zy.mul(c).sub_(yx.mul(zx)).mul_(zy)).add_(zy.mul_(yx).sub_(b.mul(zx)).mul_(zx))
    excess = det.div_(size).div_(size).div_(size).mul_(0.5).clamp_(-1, 1).add_(1).mul_(2)
    x = excess.mul(1 / 3).sqrt_()
    for _ in range(4):
        x = excess.div(x.add_(3)).sqrt_()
    y = x.add_(1)
    half_gap = y.square().mul_(-3).add_(12).clamp_(min=0).sqrt_().mul_(0.5).mul_(size)
    middle = y.mul_(size).mul(-0.5).add_(mean)
    return mean.add_(y), middle.add(half_gap), middle.sub_(half_gap)


def _fall(p: Tensor) -> list[Tensor]:
    """Compute the negated gradient by central differences (radius 1)."""
    return [_at(p, axis, -1).sub(_at(p, axis, 1)).mul_(0.5) for axis in range(3)]


def _dot(u: list[Tensor], v: list[Tensor]) -> Tensor:
    return u[0].mul(v[0]).add_(u[1].mul(v[1])).add_(u[2].mul(v[2]))


def _at(padded: Tensor, *axis_and_shift: int) -> Tensor:
    """Return the volume inside a padding of 1, shifted along some axes."""
    shift = [0, 0, 0]
    for axis, by in zip(axis_and_shift[::2], axis_and_shift[1::2], strict=True):
        shift[axis] = by
    return _shifted(padded, *shift)


def _shifted(padded: Tensor, dz: int, dy: int, dx: int) -> Tensor:
    nz, ny, nx = padded.shape
    return padded[1 + dz : nz - 1 + dz, 1 + dy : ny - 1 + dy, 1 + dx : nx - 1 + dx]


def _padded(volume: Tensor) -> Tensor:
    for axis in range(3):
        volume = _padded_axis(volume, axis, 1)
    return volume


def _padded_axis(volume: Tensor, axis: int, by: int) -> Tensor:
    import torch

    shape = _resized(volume, axis, by)
    ends = [volume.narrow(axis, i, 1).expand(shape) for i in (0, volume.shape[axis] - 1)]
    return torch.cat([ends[0], volume, ends[1]], dim=axis)


def _resized(volume: Tensor, axis: int, n: int) -> list[int]:
    return [n if i == axis else size for i, size in enumerate(volume.shape)]


def _slabs(volume: Tensor) -> Iterator[slice]:
    """Cut a volume into slabs along z: small slabs on a CPU, a single slab on a GPU."""
    depth = len(volume)
    step = max(1, _CACHED_VOXELS // math.prod(volume.shape[1:])) if volume.device.type == "cpu" else depth
    return (slice(z, min(z + step, depth)) for z in range(0, depth, step))


def _with_context(slab: slice) -> slice:
    return slice(slab.start, slab.stop + 2)

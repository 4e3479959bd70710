"""Planes in any direction."""

from __future__ import annotations

import numpy as np

NORMALS = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1), (0.2, 0.4, 0.9), (-0.3, 0.91, 0.3), (0.9, -0.3, 0.3)]


def distance(normal, edge=40):
    """Signed distance in voxels to the plane through the middle of a cube."""
    unit = np.asarray(normal) / np.linalg.norm(normal)
    return sum(n * (g - edge // 2) for n, g in zip(unit, np.indices((edge,) * 3), strict=True)), unit

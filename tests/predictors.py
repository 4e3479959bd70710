"""Models opened in one step."""

from __future__ import annotations

from nx47dask.models.backends import predictor_for, resolve_backend


def open_predictor(info, **choice):
    """What runs a model here, by the choices of `resolve_backend`."""
    return predictor_for(info, resolve_backend(info, **choice))

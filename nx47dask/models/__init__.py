"""Trained networks from files: one module a format behind one small description. Nothing here knows of dask."""

from nx47dask.models.base import ModelInfo, OnnxNetwork, describe_model, load_networks

__all__ = ["ModelInfo", "OnnxNetwork", "describe_model", "load_networks"]

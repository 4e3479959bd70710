"""Trained networks from files: one module for each format, one small description for all. Nothing here uses Dask."""

from nx47dask.models.base import ModelInfo, OnnxNetwork, describe_model, load_networks

__all__ = ["ModelInfo", "OnnxNetwork", "describe_model", "load_networks"]

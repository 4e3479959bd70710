"""What is measured on masks. Slice and volume measures live here; the competition's score takes its place beside."""

from nx47dask.metrics.shape import SLICE_COLUMNS, slice_rows, volume_shape

__all__ = ["SLICE_COLUMNS", "slice_rows", "volume_shape"]

"""Input volumes, masks, stores and the submission zip, read and written without Dask."""

from nx47dask.io.arrays import ArrayStore
from nx47dask.io.submission import copy_submission, write_submission
from nx47dask.io.tiff import write_mask_tiff
from nx47dask.io.volumes import Volume, count_chunks, discover, read_edges

__all__ = [
    "ArrayStore",
    "Volume",
    "copy_submission",
    "count_chunks",
    "discover",
    "read_edges",
    "write_mask_tiff",
    "write_submission",
]

"""Opening any volume, writing masks, stores and the submission zip. Nothing here knows of dask."""

from nx47dask.io.arrays import ArrayStore
from nx47dask.io.atomic import free_bytes_at, replace_file, sha256_file, write_text
from nx47dask.io.submission import copy_submission, write_submission
from nx47dask.io.summaries import pack_arrays, read_summary, unpack_arrays, write_summary
from nx47dask.io.tiff import write_mask_tiff
from nx47dask.io.volumes import Volume, count_chunks, discover, read_edges

__all__ = [
    "ArrayStore",
    "Volume",
    "copy_submission",
    "count_chunks",
    "discover",
    "free_bytes_at",
    "pack_arrays",
    "read_edges",
    "read_summary",
    "replace_file",
    "sha256_file",
    "unpack_arrays",
    "write_mask_tiff",
    "write_submission",
    "write_summary",
    "write_text",
]

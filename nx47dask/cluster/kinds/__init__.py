"""One module for each kind of cluster: ``start`` takes its spec and returns a Dask cluster.

A module imports at its top what its kind needs, so that only a run on such a cluster needs that.
"""

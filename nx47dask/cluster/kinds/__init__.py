"""Kinds of clusters, one module each: the function that a spec names takes the spec and returns a Dask cluster.

A module imports the packages of its kind at its top, so that only a run on such a cluster needs them.
"""

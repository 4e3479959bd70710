"""``python -m nx47dask`` is the command line."""

from nx47dask.cli import main

main()

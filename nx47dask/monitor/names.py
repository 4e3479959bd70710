"""Names by which Dask finds the page of a running job."""

from __future__ import annotations

__all__ = ["JOB_PAGE", "ROUTES_KEY"]

JOB_PAGE = "nx47dask.monitor.routes"
"""Name of the module with the routes of the page of a running job."""
ROUTES_KEY = "distributed.scheduler.http.routes"

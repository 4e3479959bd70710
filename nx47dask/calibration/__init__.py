"""Calibration of a workflow on labelled volumes: the plan, the search, findings about the best candidate, files."""

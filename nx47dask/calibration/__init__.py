"""Calibrating a workflow on labelled volumes: plan, search, what is found around the best candidate, results."""

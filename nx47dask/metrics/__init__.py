"""Measures of masks: per slice and volume, the competition's score, agreement, differences between runs.

This module imports nothing, so that a worker that measures slices does not load the compiler that the score needs.
"""

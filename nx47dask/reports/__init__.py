"""Reports of runs, comparisons, campaigns and calibrations, as pages that need no other file."""

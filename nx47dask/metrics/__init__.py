"""What is measured on masks: per slice and volume, the competition's score, agreement, differences between runs.

Nothing is imported here, so that a worker that measures slices does not load the compiler behind the score.
"""

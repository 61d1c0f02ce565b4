"""The grid of trials of a sweep, and the checks made before anything trains."""

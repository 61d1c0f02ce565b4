"""Two sweeps beside each other: the loss at equal compute, and the compute for an equal loss."""

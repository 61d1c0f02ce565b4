"""One trial from its planned steps to its held-out loss."""

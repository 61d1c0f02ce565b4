"""Predictions with intervals, and the size value that builds the model."""

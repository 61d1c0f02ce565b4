"""Predictions with intervals, tables of them, and the size value that builds a model."""

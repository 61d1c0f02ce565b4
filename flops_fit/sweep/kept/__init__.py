"""Trained models that are kept: from a worker's disk to MLflow, and back."""

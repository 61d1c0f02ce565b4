"""Forecasts that were written down before the runs they are of, and how they came out."""

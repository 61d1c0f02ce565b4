"""Plots of how a sweep is trained: its plan, and its rounds towards a goal."""

"""Kriging: what a law misses, as a smooth function of N and D."""

"""Models and data to start from; never imported by the library."""

"""The face: plots and the page."""

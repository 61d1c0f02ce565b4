"""Which runs to make: expected intervals of a sweep before it is trained."""

"""Which runs to make: the intervals that a sweep will give, before it is trained."""

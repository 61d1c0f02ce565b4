"""How a sweep grows while it is trained: by stages, and in rounds towards a goal."""

"""What a plan will cost and how precise its answer will be."""

"""The user's data: opened, fingerprinted, batched, split into training and held-out parts."""

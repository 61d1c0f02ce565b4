"""The user's model, data and loss: their requirements, cost and hash."""

"""What a law is: its equation, its optimum on the cost of compute, its variants."""

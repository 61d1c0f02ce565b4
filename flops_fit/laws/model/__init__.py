"""The laws themselves: their equations, their optimum for a compute budget, the cost of compute."""

"""Laws of metrics other than the loss: accuracy and the like, forecast at the loss's optimum."""

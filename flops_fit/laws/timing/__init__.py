"""The time of a training step by its FLOPs, measured by trial steps or by finished runs."""

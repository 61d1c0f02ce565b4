"""The pilot: learning rate and batch size found by experiment, before the sweep and at its ends."""

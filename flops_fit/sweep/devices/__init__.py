"""Accelerators that several trials share: what each takes of one, and who has it now."""

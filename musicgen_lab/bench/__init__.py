"""Bench: how fast engines make the same clips, side by side in one run."""

"""Conversion: published checkpoints become model folders."""

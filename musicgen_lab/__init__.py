"""Sweep MusicGen."""

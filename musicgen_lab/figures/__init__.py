"""Figures of a run, for notebooks, pages and print."""

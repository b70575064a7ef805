"""Blind listening: tests in which listeners do not know which parameters they hear."""

"""Benchmarks: the speed of several engines on the same work in one run."""

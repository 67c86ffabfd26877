"""Benchmarks: run as modules from the top of a checkout."""

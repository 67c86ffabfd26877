"""Measurements, each a command: `python -m bench.NAME` from the repository's root."""

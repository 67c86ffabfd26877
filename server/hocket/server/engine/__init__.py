"""The loom: which sequence computes what, step by step, in plain Python."""

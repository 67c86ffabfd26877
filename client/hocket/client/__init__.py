"""hocket's client."""

"""Shipped on purpose: a scripted model and a server on loopback, for your tests and ours."""

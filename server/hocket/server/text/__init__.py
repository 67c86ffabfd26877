"""The study: tokens to text, text to sentences. Pure functions and per-sequence objects."""

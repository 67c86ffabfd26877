"""The choir: many generations, one answer. Loop thread."""

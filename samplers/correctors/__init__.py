"""Correctors: rules at t = s, which move a text about without changing how noised it is."""

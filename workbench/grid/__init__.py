"""Grids: one file, many runs and evaluations, one page."""

"""Predictors: one rule for one reverse step a file."""

"""Evaluation sets: their files, their detokenisers, and how their likelihood is measured."""

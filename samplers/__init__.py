"""Samplers: from a trained network, seen as a view, to text."""

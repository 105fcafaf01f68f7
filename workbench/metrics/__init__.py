"""Figures of trained models: likelihood, diversity, cost, each with its interval."""

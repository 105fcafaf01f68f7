"""Samplers on texts whose law is known: what they get wrong is their own doing."""

"""The frame: parts and kinds, resolving, building, recipes as trees, keyed randomness, plug-ins."""

"""Backbones: networks from token ids to features, and the sequence mixers they are stacked from. Imports no part."""

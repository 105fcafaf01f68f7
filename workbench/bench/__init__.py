"""Benchmarks: ways of doing the same work, measured side by side in one run (``workbench bench``)."""

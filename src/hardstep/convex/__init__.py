"""Convex programs of two-layer step networks: patterns, oracles, data terms, solvers. NumPy and SciPy only."""

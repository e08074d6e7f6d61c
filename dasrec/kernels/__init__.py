"""Numba and NumPy functions on the bare arrays of one block; no framework is known here."""

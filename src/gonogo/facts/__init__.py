"""Observed state, one file per thing seen. Pure: a fact says how to look and how to read; it never looks."""

"""Checks: (revision, world) → findings. Pure. One file per condition; `catalogue.py` is the explicit table of all."""

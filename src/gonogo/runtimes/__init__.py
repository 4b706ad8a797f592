"""The only way to a machine."""

"""The control process: observe, decide, act, record."""

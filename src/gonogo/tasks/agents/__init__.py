"""Runs of agents, left as tasks: a client program as a process of its own on one device (docs/decisions/0016)."""

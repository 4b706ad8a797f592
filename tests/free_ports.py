"""A port of this machine that nobody listens on."""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 22_000, 32_000
"""Below those that the system gives to outgoing connections (32768 and up): such a one was taken between the look and
the listening, once in a run of all tests. Above those of replicas."""


def free_port() -> int:
    """One that nobody listens on right now."""
    chance = random.SystemRandom()
    for _ in range(1000):
        port = chance.randint(LOWEST, HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"no port from {LOWEST} to {HIGHEST} is free")

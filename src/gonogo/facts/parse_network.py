"""Reads /proc/net/tcp and /proc/net/tcp6: who listens, by the inode of the socket."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

LISTEN = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listening TCP socket. The inode leads to the process that holds it."""

    address: str
    port: int
    inode: int


def parse_tcp(text: str) -> tuple[Listener, ...]:
    """The listening sockets among all lines; a line that is not understood is left out."""
    found = []
    for line in text.splitlines():
        if f" {LISTEN} " not in line:  # most lines are connections: skip them cheaply
            continue
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            listener = _listener(fields[1], fields[9])
            if listener is not None:
                found.append(listener)
    return tuple(found)


def _listener(place: str, inode: str) -> Listener | None:
    words, _, port = place.partition(":")
    try:
        packed = bytes.fromhex(words)
        # The kernel prints 32-bit words in the order of the machine: little-endian on all that we run on.
        count = len(packed) // 4
        address = ipaddress.ip_address(struct.pack(f">{count}I", *struct.unpack(f"<{count}I", packed)))
        return Listener(address=str(address), port=int(port, 16), inode=int(inode))
    except (ValueError, struct.error):
        return None

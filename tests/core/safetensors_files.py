"""Makes safetensors files, by the format's own description: right ones, and headers that say anything at all."""

from __future__ import annotations

import json
from typing import Any, Mapping, Sequence

from gonogo.facts.parse_safetensors import BITS


def header_of(
    tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The header's JSON for tensors given as name → (type, shape), one behind the other."""
    told: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name, (kind, shape) in tensors.items():
        bits = BITS[kind]
        for length in shape:
            bits *= length
        told[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + bits // 8]}
        end += bits // 8
    return told


def weights_bytes_of(header: Mapping[str, Any]) -> int:
    """How many bytes of weights follow this header."""
    return max((told["data_offsets"][1] for name, told in header.items() if name != "__metadata__"), default=0)


def head(header: Mapping[str, Any] | bytes) -> bytes:
    """Length and header as they stand at the start of the file."""
    content = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def whole(header: Mapping[str, Any]) -> bytes:
    """The file, its weights all zero."""
    return head(header) + bytes(weights_bytes_of(header))

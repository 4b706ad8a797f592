"""Reads the header of a safetensors file: every tensor's shape and type, never the weights. Pure: bytes come by `read`.

The format: 8 bytes with the header's length, that many bytes of JSON, then the weights without a gap
(github.com/huggingface/safetensors, `README.md` and `safetensors/src/tensor.rs`). Written for files from strangers:
what the format forbids is refused, before anything is kept that a damaged length could make large.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Callable, Mapping

from gonogo.facts.model import Tensor
from gonogo.facts.parse_json import speakable

LARGEST_HEADER_BYTES = 100_000_000
MOST_TENSORS, MOST_DIMENSIONS, LONGEST_NAME = 262_144, 16, 1024
LARGEST_SIZE = 1 << 62
LENGTH_BYTES = 8
BITS: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_METADATA = "__metadata__"


class SafetensorsError(Exception):
    """The file cannot be used; the text says why, without the file's name."""


class _Twice(Exception):
    pass


def parse_safetensors(read: Callable[[int, int], bytes], file_bytes: int) -> tuple[Tensor, ...]:
    """The tensors of a file of `file_bytes`, in the order of its weights; `read(offset, count)` gives its bytes.

    Raises SafetensorsError, and nothing else that `read` does not raise.
    """
    if file_bytes < LENGTH_BYTES:
        raise SafetensorsError(f"it has {file_bytes} bytes, too few for a header")
    prefix = _exactly(read, 0, LENGTH_BYTES)
    if prefix == b"version ":
        raise SafetensorsError("it is a Git LFS pointer, not the weights (git lfs pull)")
    length = int.from_bytes(prefix, "little")
    if length > LARGEST_HEADER_BYTES:
        raise SafetensorsError(f"its header would have {length} bytes, {LARGEST_HEADER_BYTES} are possible")
    weights_bytes = file_bytes - LENGTH_BYTES - length
    if weights_bytes < 0:
        raise SafetensorsError(f"its header ends at byte {LENGTH_BYTES + length}, the file at {file_bytes}")
    return _tensors(_header(_exactly(read, LENGTH_BYTES, length)), weights_bytes)


def _exactly(read: Callable[[int, int], bytes], offset: int, count: int) -> bytes:
    found = read(offset, count) if count else b""
    if len(found) != count:  # the file shrank while it was read
        raise SafetensorsError(f"{count} bytes at {offset} are its header, {len(found)} were there")
    return found


def _header(content: bytes) -> Mapping[str, Any]:
    if not content.startswith(b"{"):
        raise SafetensorsError(f"its header begins with {content[:8]!r}, not with '{{'")
    if content.count(b"{") > MOST_TENSORS + 2 or content.count(b"[") > 2 * MOST_TENSORS + 2:
        raise SafetensorsError(f"its header names more than {MOST_TENSORS} tensors")
    if content.count(b",") > (MOST_DIMENSIONS + 4) * MOST_TENSORS:
        raise SafetensorsError("its header holds more numbers than tensors can have")
    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except _Twice as error:
        raise SafetensorsError(f"its header names {str(error)!r} twice") from None
    except RecursionError:
        raise SafetensorsError("its header is nested too deep") from None
    except ValueError as error:
        raise SafetensorsError(f"its header is not JSON: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise SafetensorsError("its header is not a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Twice(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return made


def _tensors(header: Mapping[str, Any], weights_bytes: int) -> tuple[Tensor, ...]:
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SafetensorsError(f"{_METADATA} in its header is no mapping of texts")
    entries = [_entry(name, told) for name, told in header.items() if name != _METADATA]
    entries.sort(key=lambda entry: entry[:2])
    end = 0
    for start, stop, tensor in entries:
        if start != end:
            what = "overlaps the one before" if start < end else "leaves a gap before it"
            raise SafetensorsError(f"the tensor {tensor.name!r} lies at {start}, expected at {end}: it {what}")
        end = stop
    if end != weights_bytes:
        raise SafetensorsError(f"its tensors need {end} bytes, {weights_bytes} follow the header")
    return tuple(tensor for _, _, tensor in entries)


def _entry(name: str, told: Any) -> tuple[int, int, Tensor]:
    """Where the tensor begins and ends, in bytes after the header, and what it is."""
    if not name or len(name) > LONGEST_NAME or not speakable(name):
        raise SafetensorsError(f"a tensor's name is impossible: {name[:40]!r}")
    if not isinstance(told, dict) or set(told) != {"dtype", "shape", "data_offsets"}:
        raise SafetensorsError(f"the tensor {name!r} has not dtype, shape and data_offsets")
    kind = told["dtype"]
    bits = BITS.get(kind) if isinstance(kind, str) else None
    if bits is None:
        raise SafetensorsError(f"the tensor {name!r} has the unknown type {str(kind)[:40]!r}")
    shape, offsets = _numbers(told["shape"], MOST_DIMENSIONS), _numbers(told["data_offsets"], 2)
    if shape is None:
        raise SafetensorsError(f"the tensor {name!r} has the impossible shape {str(told['shape'])[:80]}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise SafetensorsError(f"the tensor {name!r} has the impossible offsets {str(told['data_offsets'])[:80]}")
    size = _size(name, shape, bits)
    if offsets[1] - offsets[0] != size:
        given = offsets[1] - offsets[0]
        raise SafetensorsError(f"the tensor {name!r} of shape {list(shape)} has {size} bytes, {given} are given to it")
    return offsets[0], offsets[1], Tensor(name=name, shape=shape, kind=kind, size_bytes=size)


def _numbers(told: Any, most: int) -> tuple[int, ...] | None:
    if not isinstance(told, list) or len(told) > most:
        return None
    possible = all(type(number) is int and 0 <= number < LARGEST_SIZE for number in told)
    return tuple(told) if possible else None


def _size(name: str, shape: tuple[int, ...], bits: int) -> int:
    """In bytes; a tensor without dimensions holds one number."""
    size_bits = bits
    for length in shape:
        size_bits *= length
        if size_bits >= LARGEST_SIZE:
            raise SafetensorsError(f"the tensor {name!r} has the impossible shape {list(shape)}")
    if size_bits % 8:
        raise SafetensorsError(f"the tensor {name!r} of shape {list(shape)} is no whole number of bytes")
    return size_bits // 8

"""Which files of a repository are the model's weights: by the index, else by their names. Pure.

Not here: what stands in a file (`parse_safetensors.py`), and whether it is the file that the hub has on record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Collection, Iterable, Mapping, Union

from gonogo.facts.model import ModelProblem
from gonogo.facts.parse_json import JsonError, parse_object

INDEX_FILE, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"
MOST_SHARDS, SHOWN = 4096, 3
_PICKLE = re.compile(r"[^/]+\.(?:bin|pt|pth|ckpt|pkl|pickle)", re.IGNORECASE)
_NOT_WEIGHTS = re.compile(r"(?:training_args|optimizer|scheduler|rng_state|trainer_state)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.safetensors")
_NAME = re.compile(r"[^/\\\0]+(?:/[^/\\\0]+)*\.safetensors")
_OTHERS = re.compile(r"(?:adapter_|consolidated)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """`model.safetensors.index.json`: tensor → shard, and what all tensors have together by its own account."""

    weight_map: Mapping[str, str]
    total_bytes: Union[int, None]

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.weight_map.values())))


class ShardsError(Exception):
    """The weights cannot be used; `problem` says why."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.problem = ModelProblem(kind=kind, detail=detail)


def parse_index(content: bytes) -> Index:
    """The index that `content` holds. Raises ShardsError (shard_damaged), nothing else."""
    try:
        found = parse_object(content)
    except JsonError as error:
        raise ShardsError("shard_damaged", f"{INDEX_FILE}: {error}") from None
    told, metadata = found.get("weight_map"), found.get("metadata")
    if not isinstance(told, dict) or not told:
        raise ShardsError("shard_damaged", f"{INDEX_FILE}: it has no weight_map")
    for shard in set(map(str, told.values())):
        if not _NAME.fullmatch(shard) or ".." in shard.split("/") or "." in shard.split("/"):
            raise ShardsError("shard_damaged", f"{INDEX_FILE}: {shard[:80]!r} is no name of a shard")
    weight_map = {str(tensor): str(shard) for tensor, shard in told.items()}
    if len(set(weight_map.values())) > MOST_SHARDS:
        raise ShardsError("shard_damaged", f"{INDEX_FILE}: it names more than {MOST_SHARDS} shards")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if not isinstance(total, (int, float)) or isinstance(total, bool) or not 0 < total < 1 << 62:
        total = None
    return Index(weight_map=weight_map, total_bytes=None if total is None else int(total))


def shards_of(names: Collection[str], index: Union[Index, None]) -> tuple[str, ...]:
    """The safetensors files that make up the model, sorted. Raises ShardsError.

    With an index, what it names; else `model.safetensors`; else all safetensors files beside `config.json`, but not
    adapters, nor a second copy in another layout ("consolidated").
    """
    if index is not None:
        return _all_there(index.shards, names, f"{INDEX_FILE} names {len(index.shards)} files")
    if SINGLE_FILE in names:
        return (SINGLE_FILE,)
    found = sorted(name for name in names if "/" not in name and _NAME.fullmatch(name) and not _OTHERS.match(name))
    if not found:
        found = sorted(
            name for name in names if "/" not in name and name.startswith("consolidated") and _NAME.match(name)
        )
    if not found:
        raise _no_safetensors(names)
    if len(found) > MOST_SHARDS:
        raise ShardsError("no_weights", f"it holds {len(found)} safetensors files, at most {MOST_SHARDS} are read")
    return _numbered(found)


def pickle_files(names: Iterable[str]) -> tuple[str, ...]:
    """Weights as pickle: loading one runs whatever program its maker put into it."""
    return tuple(sorted(name for name in names if _PICKLE.fullmatch(name) and not _NOT_WEIGHTS.match(name)))


def held_against(index: Index, shard: str, tensors: Collection[str]) -> None:
    """Does the shard hold every tensor that the index looks for in it? Raises ShardsError (shard_damaged)."""
    lacking = sorted(name for name, place in index.weight_map.items() if place == shard and name not in tensors)
    if lacking:
        raise ShardsError("shard_damaged", f"{shard}: {INDEX_FILE} puts {_some(lacking)} into it, which it lacks")


def _numbered(found: list[str]) -> tuple[str, ...]:
    """Files numbered "00002-of-00003" say themselves how many there are."""
    wanted: set[str] = set()
    for name in found:
        told = _NUMBERED.fullmatch(name)
        if told is None:
            continue
        parts = int(told["parts"])
        if not 0 < parts <= MOST_SHARDS:
            raise ShardsError("shard_damaged", f"{name}: {parts} parts are not possible")
        wanted |= {f"{told['stem']}-{part:05}-of-{told['parts']}.safetensors" for part in range(1, parts + 1)}
    _all_there(sorted(wanted), found, f"their names say that there are {len(wanted)}")
    return tuple(found)


def _all_there(wanted: Iterable[str], names: Collection[str], why: str) -> tuple[str, ...]:
    wanted = tuple(wanted)
    present = set(names)
    lacking = [name for name in wanted if name not in present]
    if lacking:
        raise ShardsError("shard_missing", f"{_some(lacking)} ({why})")
    return wanted


def _no_safetensors(names: Collection[str]) -> ShardsError:
    pickled = pickle_files(names)
    if pickled:
        return ShardsError("pickle_only", _some(pickled))
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    if ggufs:
        return ShardsError("no_weights", f"it holds GGUF files ({_some(ggufs)}): give the path of one of them")
    if any(name.startswith("adapter_") for name in names):
        return ShardsError("no_weights", "it holds only an adapter (LoRA): give the model that it was made for")
    return ShardsError("no_weights", f"none of its {len(names)} files is a safetensors file")


def _some(names: Collection[str]) -> str:
    """The first three, and how many more."""
    told = ", ".join(list(names)[:SHOWN])
    return told if len(names) <= SHOWN else f"{told} and {len(names) - SHOWN} more"

"""Which files of a repository must be fetched to serve its model. Pure.

Weights once: as safetensors, never as pickle, never a second time in another layout (`original/`, `consolidated`, ONNX,
GGUF beside safetensors); of a GGUF repository the named files only. What a program would run (`.py`) is never among
them. Whether the weights can be used is judged elsewhere (`judge_checkpoint.py`).
"""

from __future__ import annotations

import re
from typing import Iterable, Sequence, Union

from gonogo.facts.checkpoint import RepoFile
from gonogo.facts.shards import Index, ShardsError, shards_of

LARGEST_BESIDE_BYTES = 256 * 1024**2
"""A tokenizer has at most some tens of MB; what is larger and no weights is not needed to serve."""
_BESIDE = re.compile(
    r"[^/]+\.(?:json|jinja|model|tiktoken|txt)|(?:additional_chat_templates|chat_templates)/[^/]+\.jinja"
    r"|(?:LICEN[CS]E|NOTICE|USE_POLICY)(?:\.[a-z]+)?",
    re.IGNORECASE,
)
_NOT_NEEDED = re.compile(
    r"[^/]+\.bin\.index\.json|(?:flax|tf|consolidated)[^/]*\.index\.json"
    r"|(?:trainer_state|training_args|all_results|eval_results|train_results|dataset_infos)\.json|requirements[^/]*\.txt",
    re.IGNORECASE,
)
_SPLIT_GGUF = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<parts>\d{5})\.gguf")
MOST_GGUF_PARTS = 1000


def needed_files(
    files: Iterable[RepoFile], index: Union[Index, None] = None, only: Sequence[str] = ()
) -> tuple[RepoFile, ...]:
    """What must be fetched, by name. `index`: of the shards, where the repository has one. Raises ShardsError.

    `only`: GGUF files of the repository; a part of a split file ("-00001-of-00003") means all its parts.
    """
    listed = {file.name: file for file in files}
    if only:
        wanted = _parts(only)
        lacking = sorted(wanted - listed.keys())
        if lacking:
            near = ", ".join(sorted(name for name in listed if name.endswith(".gguf"))[:8])
            detail = f"there is no {', '.join(lacking[:3])}; it has {near or 'no .gguf file'}"
            raise ShardsError("shard_missing", detail)
    else:
        beside = {file.name for file in listed.values() if _beside(file)}
        wanted = beside | set(shards_of(listed.keys(), index))
    unsafe = sorted(name for name in wanted if not safe_name(name))
    if unsafe:
        raise ShardsError("shard_damaged", f"{unsafe[0][:80]!r} is no name for a file in a folder")
    return tuple(listed[name] for name in sorted(wanted))


def safe_name(name: str) -> bool:
    """Whether this is a relative path that stays in its folder and hides nothing."""
    parts = name.split("/")
    return all(part and not part.startswith(".") and "\\" not in part and part.isprintable() for part in parts)


def _parts(only: Iterable[str]) -> set[str]:
    wanted: set[str] = set()
    for name in only:
        found = _SPLIT_GGUF.fullmatch(name)
        parts = int(found["parts"]) if found is not None else 0
        if found is None or not 0 < parts <= MOST_GGUF_PARTS:
            wanted.add(name)
            continue
        wanted |= {f"{found['stem']}-{part:05}-of-{found['parts']}.gguf" for part in range(1, parts + 1)}
    return wanted


def _beside(file: RepoFile) -> bool:
    small = file.size_bytes is None or file.size_bytes <= LARGEST_BESIDE_BYTES
    named = _BESIDE.fullmatch(file.name) is not None and _NOT_NEEDED.fullmatch(file.name) is None
    return small and named and safe_name(file.name)

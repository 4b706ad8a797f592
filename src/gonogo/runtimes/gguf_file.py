"""Reads a model file on this machine. Where the model that was asked for lies is `gonogo.spec.recipes`' to say.

The tables (types, architectures) are the `gguf` library's. Its reader is not used: it took 2.0 s and 195 MB for a 98 MB
file, since it keeps every word of the vocabulary, and it trusts the numbers in the file.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Mapping

from gonogo.facts.describe_checkpoint import describe_checkpoint
from gonogo.facts.model import ModelFacts, ModelProblem
from gonogo.facts.parse_gguf import GgufError, Kind, parse_gguf
from gonogo.facts.parse_model import model_facts
from gonogo.runtimes.checkpoint_folder import read_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    kinds: Mapping[int, Kind]
    architectures: frozenset[str]
    file_types: Mapping[int, str]


def read_model(asked: str, path: str) -> ModelFacts:
    """What the file's header says. Never raises for a bad file: `problem` says what is wrong with it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # never wait for a pipe's writer
    except FileNotFoundError:
        return _broken(asked, path, "missing", "there is no such file")
    except (OSError, ValueError) as error:
        return _broken(asked, path, "unreadable", getattr(error, "strerror", None) or str(error))
    try:
        return _read(asked, path, descriptor)
    finally:
        os.close(descriptor)


def _read(asked: str, path: str, descriptor: int) -> ModelFacts:
    seen = os.fstat(descriptor)
    if stat.S_ISDIR(seen.st_mode):
        return _of_folder(asked, path)
    if not stat.S_ISREG(seen.st_mode):
        return _broken(asked, path, "unreadable", "it is not a regular file")
    tables = _tables()
    try:
        header = parse_gguf(lambda at, count: os.pread(descriptor, count, at), seen.st_size, tables.kinds)
        facts = model_facts(header, tables.architectures, tables.file_types)
    except GgufError as error:
        return ModelFacts(asked=asked, path=path, file_bytes=seen.st_size, problem=error.problem)
    except OSError as error:
        return _broken(asked, path, "unreadable", error.strerror or str(error))
    return replace(facts, asked=asked, path=path, file_bytes=seen.st_size)


def _of_folder(asked: str, path: str) -> ModelFacts:
    """A folder is not one GGUF file, but it may be a checkpoint."""
    found = read_folder(Path(path), asked=asked)
    if found.config is None and (
        found.problem is None or found.problem.kind not in ("pickle_only", "config_unreadable")
    ):
        return _broken(asked, path, "unreadable", "it is a directory without a config.json")
    return describe_checkpoint(found, path)


def _broken(asked: str, path: str, kind: str, detail: str) -> ModelFacts:
    return ModelFacts(asked=asked, path=path, problem=ModelProblem(kind=kind, detail=detail))


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    """Loaded late: the library takes 0.4 s to import."""
    from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, GGMLQuantizationType, LlamaFileType

    kinds = {
        int(kind): Kind(name=GGMLQuantizationType(kind).name, block_elements=elements, block_bytes=size)
        for kind, (elements, size) in GGML_QUANT_SIZES.items()
    }
    names = {int(kind): kind.name for kind in LlamaFileType}
    return _Tables(kinds=kinds, architectures=frozenset(MODEL_ARCH_NAMES.values()), file_types=names)

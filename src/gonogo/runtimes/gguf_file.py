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
from typing import Callable, Mapping, TypeVar

from gonogo.facts.describe_checkpoint import describe_checkpoint
from gonogo.facts.model import ModelFacts, ModelProblem, ProjectorFacts
from gonogo.facts.parse_gguf import GgufError, Header, Kind, parse_gguf
from gonogo.facts.parse_model import model_facts
from gonogo.facts.parse_projector import projector_facts
from gonogo.runtimes.checkpoint_folder import read_folder

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    kinds: Mapping[int, Kind]
    architectures: frozenset[str]
    file_types: Mapping[int, str]


def read_model(asked: str, path: str) -> ModelFacts:
    """What the file's header says. Never raises for a bad file: `problem` says what is wrong with it."""
    if os.path.isdir(path):
        return _of_folder(asked, path)
    tables = _tables()
    found, file_bytes = _read(path, lambda header, _: model_facts(header, tables.architectures, tables.file_types))
    if isinstance(found, ModelProblem):
        return ModelFacts(asked=asked, path=path, file_bytes=file_bytes, problem=found)
    return replace(found, asked=asked, path=path, file_bytes=file_bytes)


def read_projector(path: str) -> ProjectorFacts:
    """What the header of a vision projector says. Never raises for a bad file, as above."""
    found, file_bytes = _read(path, lambda header, size: projector_facts(header, path, size))
    if isinstance(found, ModelProblem):
        return ProjectorFacts(path=path, file_bytes=file_bytes, problem=found)
    return found


def _read(path: str, facts: Callable[[Header, int], Facts]) -> tuple[Facts | ModelProblem, int | None]:
    """The facts made of the file's header, or what is wrong with it, and its size in bytes where it was seen."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # never wait for a pipe's writer
    except FileNotFoundError:
        return ModelProblem(kind="missing", detail="there is no such file"), None
    except (OSError, ValueError) as error:
        return ModelProblem(kind="unreadable", detail=getattr(error, "strerror", None) or str(error)), None
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            return ModelProblem(kind="unreadable", detail="it is not a regular file"), None
        header = parse_gguf(lambda at, count: os.pread(descriptor, count, at), seen.st_size, _tables().kinds)
        return facts(header, seen.st_size), seen.st_size
    except GgufError as error:
        return error.problem, seen.st_size
    except OSError as error:
        return ModelProblem(kind="unreadable", detail=error.strerror or str(error)), None
    finally:
        os.close(descriptor)


def _of_folder(asked: str, path: str) -> ModelFacts:
    """A folder is not one GGUF file, but it may be a checkpoint."""
    found = read_folder(Path(path), asked=asked)
    told = found.problem.kind if found.problem is not None else None
    if found.config is None and told not in ("pickle_only", "config_unreadable"):
        problem = ModelProblem(kind="unreadable", detail="it is a directory without a config.json")
        return ModelFacts(asked=asked, path=path, problem=problem)
    return describe_checkpoint(found, path)


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

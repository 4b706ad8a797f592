"""Looks for the programs around an engine: container engine and its toolkit, CUDA toolkit, NCCL. Slow: processes."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from typing import TypeVar

from gonogo.facts import table
from gonogo.facts.fact import Fact
from gonogo.facts.host import Installed, Tools
from gonogo.facts.parse_programs import last_words
from gonogo.facts.parse_tools import ContainerEngine, parse_nccl_file
from gonogo.runtimes.ask import ask

Seen = TypeVar("Seen")
NCCL_PACKAGES = ("nvidia-nccl-cu13", "nvidia-nccl-cu12", "nvidia-nccl-cu11")
CUDA_FOLDER = "/usr/local/cuda/bin/nvcc"
LDCONFIG_FOLDERS = "/sbin:/usr/sbin"


def look_at_tools() -> Tools:
    """What is installed, asking each program for at most 5 s. What is not there is None."""
    return Tools(
        container_engine=_container_engine(),
        container_toolkit=_version("container toolkit", table.CONTAINER_TOOLKIT),
        cuda_toolkit=_version("CUDA toolkit", table.CUDA_TOOLKIT, beside=CUDA_FOLDER),
        nccl=_nccl(),
    )


def _container_engine() -> ContainerEngine | None:
    """The first engine that runs; when none does, the first that is there, with why it does not."""
    there = []
    for fact in table.CONTAINER_ENGINES:
        if shutil.which(fact.command[0]) is None:
            continue
        answer = ask(fact.command, fact.timeout_s)
        seen = fact.parse(answer.text) if answer.problem is None else None
        if seen is not None and seen.running:
            return seen
        words = answer.problem or last_words(answer.text)
        silent = ContainerEngine(
            name=fact.command[0], client_version=None, server_version=None, running=None, words=words
        )
        there.append(seen or silent)
    return there[0] if there else None


def _version(name: str, fact: Fact[str | None], beside: str | None = None) -> Installed | None:
    """`beside`: where the program lies when it is not on the search path."""
    found = shutil.which(fact.command[0]) or (beside if beside is not None and os.access(beside, os.X_OK) else None)
    if found is None:
        return None
    answer = ask((found, *fact.command[1:]), fact.timeout_s)
    version = fact.parse(answer.text) if answer.problem is None else None
    error = None if version is not None else answer.problem or last_words(answer.text)
    return Installed(name=name, version=version, error=error)


def _nccl() -> Installed | None:
    """NCCL as a package of this environment, else as a library of the system.

    The one inside an engine's own environment is told by `gonogo check --measure --python`.
    """
    for package in NCCL_PACKAGES:
        try:
            return Installed(name="NCCL", version=importlib.metadata.version(package), error=None)
        except importlib.metadata.PackageNotFoundError:
            continue
    program = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":" + LDCONFIG_FOLDERS)
    if program is None:
        return None
    answer = ask((program, *table.NCCL.command[1:]), table.NCCL.timeout_s)
    library = table.NCCL.parse(answer.text) if answer.problem is None else None
    if library is None:
        return None
    real = os.path.realpath(library)
    version = parse_nccl_file(real)
    error = None if version is not None else f"{real} does not tell its version"
    return Installed(name="NCCL", version=version, error=error)

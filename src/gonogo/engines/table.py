"""The table of engines: one line each. A new engine is one file beside this one and one line here."""

from __future__ import annotations

from typing import Callable, Mapping

from gonogo.engines.llamacpp import LlamaCpp
from gonogo.engines.model import Engine
from gonogo.spec import Spec

ENGINES: Mapping[str, Callable[[str], Engine]] = {LlamaCpp.name: LlamaCpp}
"""Engine name → its adapter, made with the Python interpreter that runs it on the replica's host."""


def engine_for(spec: Spec | None, interpreter: str = "python") -> Engine:
    """The engine that serves this spec; None asks for the default one. `interpreter` matters for `launch` only.

    It is the path, on the replica's host, of the Python of the environment that holds the engine.
    """
    del spec  # a GGUF file on this machine is all that can be asked for so far, and llama.cpp serves all of them
    return ENGINES[LlamaCpp.name](interpreter)

"""The spec's section `engine`: which one serves, and how it is started."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import Field

from gonogo.spec.part import Part


class KvCache(str, Enum):
    """How the cached keys and values are stored: in the model's own type, or in eight bits."""

    AUTO = "auto"
    FP8 = "fp8"


class EngineChoice(Part):
    """Which engine serves, and how it is started.

    `gonogo up` chooses what is absent and writes it into the revision, so that a revision says exactly what runs.
    """

    name: Annotated[
        Literal["llama.cpp", "vllm", "vllm-cpu", "sglang"],
        Field(description="The engine: `vllm` and `sglang` need NVIDIA GPUs, `vllm-cpu` and `llama.cpp` none."),
    ]
    version: Annotated[
        str | None,
        Field(pattern=r"^[0-9][0-9A-Za-z.+]{0,39}$", description="Its version; absent: the newest that fits."),
    ] = None
    environment: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,120}$",
            description="The locked environment that holds it, as `gonogo env list` names it; absent: made.",
        ),
    ] = None
    tensor: Annotated[int, Field(ge=1, le=64, description="GPUs that divide each layer of one replica.")] = 1
    pipeline: Annotated[int, Field(ge=1, le=64, description="Stages of layers, each on GPUs of its own.")] = 1
    share: Annotated[
        float | None,
        Field(ge=0.05, le=0.99, description="Part of each GPU's memory that the engine may take; absent: planned."),
    ] = None
    sequences: Annotated[
        int | None, Field(ge=1, le=4096, description="Requests that one replica works on at once; absent: planned.")
    ] = None
    batch_tokens: Annotated[
        int | None, Field(ge=64, le=1_048_576, description="Most tokens of one step; absent: as the engine chooses.")
    ] = None
    kv_cache: Annotated[KvCache, Field(description="How keys and values are cached.")] = KvCache.AUTO
    quantization: Annotated[
        Literal["fp8"] | None,
        Field(description="Made by the engine while it loads 16-bit weights; absent: the weights as they are."),
    ] = None
    graphs: Annotated[bool, Field(description="Whether CUDA graphs are captured at the start; they need memory.")] = (
        True
    )
    load_limit_s: Annotated[
        float | None,
        Field(
            ge=5,
            le=86_400,
            description="Seconds from a replica's start to its first token, then it is given up; absent: the engine's.",
        ),
    ] = None

"""The engines that plans are made for: how each uses memory, which versions, and what a card must be able to do.

A planner needs no adapter: whether an engine can be deployed from here is another question (`gonogo.engines.table`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

from gonogo.engines import llamacpp_cards, sglang_memory, transformers_memory, vllm_memory
from gonogo.engines.replica_memory import ReplicaMemory
from gonogo.engines.serving import Device, Serving, Version
from gonogo.facts.architecture import Architecture
from gonogo.facts.weights import Group

Capability = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """One engine. `schemes`: least compute capability for each way to store weights; `online`: schemes that it can
    make of 16-bit weights while it loads them. `newest`: the version that plans are made for when none is asked;
    `oldest`: nothing was read of those before it, so that they are refused.
    `most_tensor`: cards that may divide a layer, None: as the model divides. `alone`: it serves one request at a time,
    so that it is planned only when it is asked for."""

    name: str
    title: str
    newest: Version
    oldest: Version
    replica_memory: Callable[[Architecture, Sequence[Group], Serving, Device], ReplicaMemory]
    schemes: Mapping[str, Capability]
    online: Mapping[str, Capability]
    least_capability: Capability
    pipelines: bool
    alone: bool
    most_tensor: int | None
    share_flag: str
    default_share: Callable[[Architecture, Serving, Device], float]

    def reads(self, method: str, capability: Capability) -> bool:
        """Whether weights stored so can be served on such a card."""
        least = self.schemes.get(method)
        return least is not None and capability >= least

    @property
    def newest_text(self) -> str:
        return ".".join(map(str, self.newest))


def _vllm_share(model: Architecture, serving: Serving, device: Device) -> float:
    del model, serving, device
    return vllm_memory.DEFAULT_SHARE


def _whole(model: Architecture, serving: Serving, device: Device) -> float:
    del model, serving, device
    return 1.0


_MARLIN: Mapping[str, Capability] = {
    "fp8": (8, 0),
    "fp8_block": (8, 0),
    "int8": (7, 5),
    "int4": (7, 5),
    "int4_g32": (8, 0),
    "mxfp4": (8, 0),
    "nvfp4": (8, 0),
    "bnb4": (7, 0),
}
"""Below 8.9 (FP8) and 10.0 (FP4) the weights are unpacked by Marlin kernels: less memory, no faster arithmetic."""

PLANNERS: Mapping[str, Planner] = {
    "vllm": Planner(
        name="vllm",
        title="vLLM",
        newest=(0, 33, 0),
        oldest=(0, 6, 5),
        replica_memory=vllm_memory.replica_memory,
        schemes=_MARLIN,
        online={"fp8": (8, 0), "bnb4": (7, 0)},
        least_capability=(7, 0),
        pipelines=True,
        alone=False,
        most_tensor=None,
        share_flag="--gpu-memory-utilization",
        default_share=_vllm_share,
    ),
    "sglang": Planner(
        name="sglang",
        title="SGLang",
        newest=(0, 5, 23),
        oldest=(0, 5, 0),
        replica_memory=sglang_memory.replica_memory,
        schemes={name: max(least, (8, 0)) for name, least in _MARLIN.items()},
        online={"fp8": (8, 9)},
        least_capability=(7, 5),
        pipelines=True,
        alone=False,
        most_tensor=None,
        share_flag="--mem-fraction-static",
        default_share=sglang_memory.default_share,
    ),
    "llama.cpp": Planner(
        name="llama.cpp",
        title="llama.cpp",
        newest=(11549,),
        oldest=(4463,),
        replica_memory=llamacpp_cards.replica_memory,
        schemes={},
        online={},
        least_capability=(6, 0),
        pipelines=False,
        alone=False,
        most_tensor=1,
        share_flag="",
        default_share=_whole,
    ),
    "transformers": Planner(
        name="transformers",
        title="transformers",
        newest=(5, 23, 0),
        oldest=(5, 0, 0),
        replica_memory=transformers_memory.replica_memory,
        schemes={"int4": (7, 5), "bnb4": (7, 0), "int8": (7, 0), "mxfp4": (7, 5)},
        online={"bnb4": (7, 0)},
        least_capability=(7, 0),
        pipelines=False,
        alone=True,
        most_tensor=1,
        share_flag="",
        default_share=_whole,
    ),
}

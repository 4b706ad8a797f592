"""How an engine is asked to serve a model on accelerators: the settings that its memory depends on. Pure.

Not here: the words of a command line (the adapters), nor what a card is called (`gonogo.facts.accelerator_class`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.facts.architecture import Scheme

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator: memory in bytes as its driver reports it, streaming multiprocessors, compute capability.

    `free_bytes` is what an engine finds free when it looks, its context made; None: not observed, then planned as an
    idle card.
    """

    name: str
    total_bytes: int
    free_bytes: int | None = None
    processors: int
    capability: tuple[int, int]

    @property
    def hopper_or_newer(self) -> bool:
        return self.capability >= (9, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """What an engine of this version printed on such a card, instead of what a table says. None: not seen.

    `graphs_factor`: graphs as printed over graphs as planned, since those grow with the model. `forward_hidden`:
    vectors of the hidden size per token that a forward pass holds.
    """

    non_torch_bytes: int | None = None
    graphs_factor: float | None = None
    forward_hidden: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What is asked of one replica. None: as the engine chooses by itself.

    `context_tokens`: of the longest request, prompt and answer. `share` of each card's memory that the engine may take
    (`gpu_memory_utilization`, `mem_fraction_static`). `sequences`: at most in one step; `batch_tokens`: in one step.
    `tensor`, `pipeline`: accelerators that divide each layer, and stages of layers. `scheme`: quantized while loading,
    instead of what the checkpoint holds. `gguf`: the quantization
    of a GGUF file, as its name says it. `images`: per request; `image_tokens`: of the largest one. `adapter_rank`: of
    the LoRA adapters that may be loaded, None: none. `encoder_copied`: each card of a layer holds the whole image
    encoder (`--mm-encoder-tp-mode data`), instead of a part of it.
    """

    version: Version
    context_tokens: int
    share: float | None = None
    sequences: int | None = None
    batch_tokens: int | None = None
    tensor: int = 1
    pipeline: int = 1
    context_parallel: int = 1
    kv_bytes: float | None = None
    dtype_bytes: int | None = None
    scheme: Scheme | None = None
    gguf: str | None = None
    block_tokens: int = 16
    graphs: bool = True
    image_tokens: int | None = None
    images: int | None = None
    adapter_rank: int | None = None
    encoder_copied: bool = False
    corrections: Corrections = Corrections()

    @property
    def devices(self) -> int:
        """Accelerators of one replica."""
        return self.tensor * self.pipeline

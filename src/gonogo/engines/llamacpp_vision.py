"""llama.cpp's image encoder: how many tokens one picture may take, and the memory that its projector needs. Pure.

Read from llama.cpp (`tools/mtmd/clip.cpp`) and held against what build 11549 printed for GLM-4V's layout; the cases are
in `tests/cases/engines/llamacpp/projector.yaml`.
"""

from __future__ import annotations

from gonogo.engines.memory import Term
from gonogo.facts.model import ProjectorFacts

MOST_IMAGE_TOKENS = 4096
"""Of one picture, which llama.cpp sets itself for these kinds; a larger picture is scaled down."""
SCALED = ("glm4v", "qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger")
"""Kinds whose pictures take as many tokens as they have pixels for. All others have sizes of their own."""
USUAL_MERGE = 2
IMAGE_SHARE = (3, 4)
"""Of the context, at most this much for one picture: the rest is for the words and the answer."""
SCALED_PIXEL_BYTES, SENT_PIXEL_BYTES, SENT_PIXELS = 16, 6, 1440 * 3200
"""Of each picture in progress. Measured with screens of 1080x2400, eight at once: 14.1 and 5.8 B per pixel."""
RETURN_FROM_BYTES = 1024**2
"""Freed blocks from this size on go back to the system. By default glibc keeps those of up to 32 MiB in each thread:
after 14 screens, one by one, an engine held 770 MiB instead of 315."""
SINGLE, COLOURS = 4, 3
FIXED_FLOATS = 80


def image_tokens(projector: ProjectorFacts, context_tokens: int) -> int | None:
    """The most tokens that one picture may take in such a context; None: the projector alone decides."""
    if projector.kind not in SCALED:
        return None
    return min(MOST_IMAGE_TOKENS, context_tokens * IMAGE_SHARE[0] // IMAGE_SHARE[1])


def projector_terms(projector: ProjectorFacts, context_tokens: int, requests: int) -> tuple[Term, ...]:
    """The memory of one replica's projector, while so many requests wait or are answered. None that was not read."""
    if projector.weights_bytes is None:
        return ()
    tokens = image_tokens(projector, context_tokens)
    compute = None if tokens is None else compute_bytes(projector, tokens)
    source = "sum of the projector's tensors; each replica reads its own"
    if tokens is None or compute is None:
        source += f"; what its encoder and pictures take is not counted: not known for {projector.kind!r}"
        return (Term(name="projector", size_bytes=projector.weights_bytes, source=source),)
    side = (projector.patch_size or 0) * (projector.merge or USUAL_MERGE)
    one = tokens * (SCALED_PIXEL_BYTES * side * side + SINGLE * (projector.output_length or 0))
    one += SENT_PIXEL_BYTES * SENT_PIXELS
    return (
        Term(name="projector", size_bytes=projector.weights_bytes, source=source),
        Term(
            name="projector_compute",
            size_bytes=compute,
            source=f"the encoder's widest step for a picture of {tokens} tokens, as build 11549 printed it",
        ),
        Term(
            name="pictures",
            size_bytes=(requests + 1) * one,
            source=f"measured: {requests} requests + 1 being read × ({SCALED_PIXEL_BYTES} B for each pixel of {tokens} "
            f"tokens, {SENT_PIXEL_BYTES} B for each of 1440×3200 as sent, embeddings in float32); larger take more",
        ),
    )


def compute_bytes(projector: ProjectorFacts, tokens: int) -> int | None:
    """The compute buffer for a picture of so many tokens; None for a layout that was not held against a print.

    The widest of four steps, in float32 per patch: reading the patches (pixels, and once more in half precision), the
    attention, the feed-forward network, the merger of patches into a token.
    """
    wide, inner, patch = projector.embedding_length, projector.feed_forward_length, projector.patch_size
    if projector.kind != "glm4v" or not wide or not inner or not patch:
        return None
    area = (projector.merge or USUAL_MERGE) ** 2
    pixels = COLOURS * patch * patch
    merger = 3 * (projector.merger_length or 0) + (projector.output_length or 0)
    reading = pixels + pixels // 2 + wide + 4
    attention = 6 * wide + wide // 2 + FIXED_FLOATS
    widest = max(reading, attention, 3 * inner + 2 * wide, -(-merger // area))
    return widest * SINGLE * area * tokens

"""From a GGUF header to `ProjectorFacts`: the file beside a text model that turns pictures into its tokens. Pure.

Sources: the keys and the output tensor of each kind are those that llama.cpp reads (`tools/mtmd/clip.cpp`).
"""

from __future__ import annotations

from typing import Mapping, Union

from gonogo.facts.model import ProjectorFacts
from gonogo.facts.parse_gguf import Array, GgufError, Header, Scalar

ARCHITECTURE = "clip"
LARGEST_NUMBER = 1 << 24
_OUTPUTS: Mapping[str, tuple[str, int]] = {
    "glm4v": ("mm.down.weight", 1),
    "mlp": ("mm.2.weight", 1),
    "pixtral": ("mm.2.weight", 1),
    "qwen2vl_merger": ("mm.2.weight", 1),
    "qwen2.5vl_merger": ("mm.2.weight", 1),
    "qwen3vl_merger": ("mm.2.weight", 1),
    "internvl": ("mm.3.weight", 1),
    "idefics3": ("mm.model.fc.weight", 1),
    "gemma3": ("mm.input_projection.weight", 0),
}
"""Kind → the tensor, and its dimension, that is as wide as the text model. `projection_dim` of old files is not."""


def projector_facts(header: Header, path: str, file_bytes: int) -> ProjectorFacts:
    """What the header says. Raises GgufError for a file that is no vision projector, or says impossible things."""
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        seen = f"the architecture {architecture!r}" if isinstance(architecture, str) else "no architecture"
        raise GgufError("not_projector", f"{seen}, not {ARCHITECTURE!r}")
    if metadata.get("clip.has_vision_encoder") is not True:
        raise GgufError("not_projector", "no vision encoder")
    kind = metadata.get("clip.projector_type", metadata.get("clip.vision.projector_type"))
    if not isinstance(kind, str) or not kind:
        raise GgufError("corrupt", "the metadata key 'clip.projector_type' is missing")
    if not header.tensors:
        raise GgufError("corrupt", "it holds no tensors")
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    return ProjectorFacts(
        path=path,
        file_bytes=file_bytes,
        name=_text(metadata.get("general.name")),
        kind=kind,
        image_size=_needed(metadata, "clip.vision.image_size"),
        patch_size=_needed(metadata, "clip.vision.patch_size"),
        merge=_number(metadata, "clip.vision.spatial_merge_size"),
        embedding_length=_needed(metadata, "clip.vision.embedding_length"),
        feed_forward_length=_extent(shapes, "v.blk.0.ffn_up.weight", 1),
        merger_length=_extent(shapes, "mm.up.weight", 1),
        projection_length=_number(metadata, "clip.vision.projection_dim"),
        output_length=_extent(shapes, *_OUTPUTS.get(kind, ("", 0))),
        weights_bytes=sum(tensor.size_bytes for tensor in header.tensors),
    )


def _text(value: Union[Scalar, Array, None]) -> str | None:
    return value if isinstance(value, str) and value else None


def _extent(shapes: Mapping[str, tuple[int, ...]], name: str, dimension: int) -> int | None:
    shape = shapes.get(name, ())
    return shape[dimension] if dimension < len(shape) else None


def _number(metadata: Mapping[str, Union[Scalar, Array]], key: str) -> int | None:
    value = metadata.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_NUMBER:
        raise GgufError("corrupt", f"the metadata key {key!r} is {value!r}, 1 to {LARGEST_NUMBER} is possible")
    return value


def _needed(metadata: Mapping[str, Union[Scalar, Array]], key: str) -> int:
    value = _number(metadata, key)
    if value is None:
        raise GgufError("corrupt", f"the metadata key {key!r} is missing")
    return value

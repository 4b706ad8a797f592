"""Writes a small, real vision projector with random weights, and the text model that it belongs to: GLM-4V's layout."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy

from tests.shell.tiny_model import Shape, write_tiny_model

TEXT = Shape(architecture="glm4")
"""A text model of GLM-4.1V's architecture: positions of an image have a height and a width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What decides the buffers of the image encoder. `projection`: of the text model that it is for."""

    kind: str = "glm4v"
    embedding: int = 64
    feed_forward: int = 96
    heads: int = 2
    layers: int = 2
    image: int = 56
    patch: int = 14
    projection: int = TEXT.embedding
    merger: int = 80
    half_precision: bool = False


SIGHT = Sight()


def write_tiny_projector(path: Path, sight: Sight = SIGHT, architecture: str = "clip") -> Path:
    """Write the projector; a few hundred kilobytes for the default one."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name("tiny projector")
    writer.add_string("clip.projector_type", sight.kind)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_silu", True)
    writer.add_uint32("clip.vision.image_size", sight.image)
    writer.add_uint32("clip.vision.patch_size", sight.patch)
    writer.add_uint32("clip.vision.embedding_length", sight.embedding)
    writer.add_uint32("clip.vision.feed_forward_length", sight.feed_forward)
    writer.add_uint32("clip.vision.block_count", sight.layers)
    writer.add_uint32("clip.vision.attention.head_count", sight.heads)
    writer.add_uint32("clip.vision.projection_dim", sight.projection)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    _add_tensors(writer, sight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tensors(writer: gguf.GGUFWriter, sight: Sight) -> None:
    random = numpy.random.default_rng(2)
    kind = numpy.float16 if sight.half_precision else numpy.float32

    def add(name: str, *dimensions: int, norm: bool = False) -> None:
        if norm:
            writer.add_tensor(f"{name}.weight", numpy.ones(dimensions, dtype=numpy.float32))
        else:
            tensor = random.standard_normal(dimensions, dtype=numpy.float32) * 0.02
            writer.add_tensor(f"{name}.weight", tensor.astype(kind))

    wide, hidden = sight.embedding, sight.projection
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        patch = random.standard_normal((wide, 3, sight.patch, sight.patch), dtype=numpy.float32) * 0.02
        writer.add_tensor(name, patch.astype(kind))
    writer.add_tensor("v.patch_embd.bias", numpy.zeros(wide, dtype=numpy.float32))
    positions = random.standard_normal(((sight.image // sight.patch) ** 2, wide), dtype=numpy.float32)
    writer.add_tensor("v.position_embd.weight", positions)
    add("v.norm_embd", wide, norm=True)
    add("v.post_ln", wide, norm=True)
    for layer in range(sight.layers):
        block = f"v.blk.{layer}."
        add(block + "ln1", wide, norm=True)
        add(block + "attn_qkv", 3 * wide, wide)
        add(block + "attn_out", wide, wide)
        add(block + "ln2", wide, norm=True)
        add(block + "ffn_gate", sight.feed_forward, wide)
        add(block + "ffn_up", sight.feed_forward, wide)
        add(block + "ffn_down", wide, sight.feed_forward)
    add("mm.patch_merger", hidden, wide, 2, 2)
    writer.add_tensor("mm.patch_merger.bias", numpy.zeros(hidden, dtype=numpy.float32))
    add("mm.model.fc", hidden, hidden)
    add("mm.post_norm", hidden, norm=True)
    writer.add_tensor("mm.post_norm.bias", numpy.zeros(hidden, dtype=numpy.float32))
    add("mm.gate", sight.merger, hidden)
    add("mm.up", sight.merger, hidden)
    add("mm.down", hidden, sight.merger)


def write_tiny_text(path: Path) -> Path:
    """The text model of the projector above."""
    return write_tiny_model(path, TEXT)


def picture(width: int, height: int) -> str:
    """A PNG of this size with stripes, as a data: URL."""
    rows = b"".join(b"\0" + bytes((column * 7 + row * 3) % 256 for column in range(3 * width)) for row in range(height))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()

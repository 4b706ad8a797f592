"""Small models as a hub or a folder holds them: sharded, single, pickled, with code of their own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.core.safetensors_files import head, header_of, weights_bytes_of
from tests.shell.fake_hub import HubFile, large, small

LAYERS, HIDDEN, VOCABULARY = 4, 1024, 4096
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "vocab_size": VOCABULARY,
}


def layer_tensors(layers: range) -> dict[str, tuple[str, list[int]]]:
    return {f"model.layers.{layer}.mlp.up_proj.weight": ("BF16", [HIDDEN, 4 * HIDDEN]) for layer in layers}


FIRST = {"model.embed_tokens.weight": ("BF16", [VOCABULARY, HIDDEN]), **layer_tensors(range(2))}
SECOND = {**layer_tensors(range(2, LAYERS)), "lm_head.weight": ("BF16", [VOCABULARY, HIDDEN])}


def shard(tensors: dict[str, tuple[str, list[int]]], sha256: str | None = None) -> HubFile:
    header = header_of(tensors, {"format": "pt"})
    start = head(header)
    return large(start, len(start) + weights_bytes_of(header), sha256)


def sharded(**config: Any) -> dict[str, HubFile]:
    """A llama in two shards with index, tokenizer and a chat template; 50 MB of weights."""
    weight_map = {**dict.fromkeys(FIRST, SHARDS[0]), **dict.fromkeys(SECOND, SHARDS[1])}
    total = sum(weights_bytes_of(header_of(tensors)) for tensors in (FIRST, SECOND))
    return {
        "config.json": small({**CONFIG, **config}),
        "generation_config.json": small({"temperature": 0.6}),
        "tokenizer_config.json": small(
            {"chat_template": "{{ messages }}", "added_tokens_decoder": {"0": {}}, "eos": "x"}
        ),
        "tokenizer.json": large(b"{}", 20_000_000),
        "model.safetensors.index.json": small({"metadata": {"total_size": total}, "weight_map": weight_map}),
        SHARDS[0]: shard(FIRST),
        SHARDS[1]: shard(SECOND),
        "README.md": small(b"# a model"),
        ".gitattributes": small(b"*.safetensors filter=lfs"),
    }


def filled(file: HubFile, seed: int) -> HubFile:
    """The same file with bytes of its own instead of zeros: one that is put together wrongly has another hash."""
    content = file.start + random.Random(seed).randbytes(file.size - len(file.start))
    return large(content, file.size)


def small_model() -> dict[str, HubFile]:
    """A llama in two shards of 4 MiB each, beside what is not needed to serve it."""
    hidden, vocabulary = 512, 4096
    embed = {"model.embed_tokens.weight": ("BF16", [vocabulary, hidden])}
    layer = {"model.layers.0.mlp.up_proj.weight": ("BF16", [hidden, vocabulary])}
    weight_map = {**dict.fromkeys(embed, SHARDS[0]), **dict.fromkeys(layer, SHARDS[1])}
    return {
        "config.json": small({**CONFIG, "num_hidden_layers": 1, "hidden_size": hidden, "vocab_size": vocabulary}),
        "tokenizer.json": filled(large(b"{}", 300_000), 1),
        "chat_template.jinja": small(b"{{ messages }}"),
        "empty.txt": small(b""),
        "model.safetensors.index.json": small({"metadata": {}, "weight_map": weight_map}),
        SHARDS[0]: filled(shard(embed), 2),
        SHARDS[1]: filled(shard(layer), 3),
        "pytorch_model.bin": large(b"pickle", 9_000_000),
        "original/consolidated.00.pth": large(b"pickle", 9_000_000),
        "README.md": small(b"# a model"),
    }


def write_folder(folder: Path, files: dict[str, HubFile]) -> Path:
    """The same files on this disk; their zeros are holes."""
    for name, file in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as opened:
            opened.write(file.start)
            opened.truncate(file.size)
    return folder

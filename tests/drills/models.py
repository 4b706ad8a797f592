"""Model files that a drill breaks: small ones with random weights, and copies of the real one with bytes changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from gonogo.spec.recipes import find_model
from tests.shell.checkpoints import CONFIG, SHARDS, sharded, write_folder
from tests.shell.fake_hub import large, small
from tests.shell.tiny_model import Shape, write_tiny_model

HEADER_BYTES = 8 * 1024 * 1024
"""More than the header of the real model, less than its weights."""

HUGE: Mapping[str, Any] = {
    "service": "huge",
    "expect": {"concurrent_requests": 32, "context_tokens": 1_048_576},
}
"""With the file of that name: in each of two replicas sixteen times a million tokens of 64 KiB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Where each lies. `broken`: reason code → path of a file that cannot be read for that reason."""

    broken: Mapping[str, Path]
    frobnicator: Path
    huge: Path
    without_template: Path


def write_models(folder: Path) -> ModelFiles:
    """Write them all; about 120 MB."""
    folder.mkdir(parents=True)
    real = Path(str(find_model("smollm2-135m")))
    with real.open("rb") as file:
        start = file.read(HEADER_BYTES)
    truncated, corrupt, text = (folder / f"{name}.gguf" for name in ("truncated", "corrupt", "text"))
    truncated.write_bytes(start)
    corrupt.write_bytes(start[:16] + b"\xff" * 8 + start[24:])  # the number of metadata keys
    text.write_text("<html>404: no such model</html>\n" * 40)
    (folder / "folder.gguf").mkdir()
    folders = _folders(folder / "folders")
    without = folder / "without-template.gguf"
    without.write_bytes(_without_template(real.read_bytes()))
    return ModelFiles(
        broken={
            "ModelMissing": folder / "missing.gguf",
            "ModelUnreadable": folder / "folder.gguf",
            "ModelTruncated": truncated,
            "ModelCorrupt": corrupt,
            "ModelNotGguf": text,
            **folders,
        },
        frobnicator=write_tiny_model(folder / "frobnicator.gguf", Shape(architecture="frobnicator")),
        huge=write_tiny_model(
            folder / "huge.gguf", Shape(layers=4, heads=32, kv_heads=32, head_length=128, context=1_048_576)
        ),
        without_template=without,
    )


def _folders(place: Path) -> Mapping[str, Path]:
    """Folders of safetensors files as people have them, each with one thing wrong."""
    good = {name: file for name, file in sharded().items() if name != "tokenizer.json"}
    without_second = {name: file for name, file in good.items() if name != SHARDS[1]}
    lying = {**good, "config.json": small({**CONFIG, "num_hidden_layers": 40})}
    pickled = {"config.json": good["config.json"], "pytorch_model.bin": large(b"\x80\x02", 99)}
    broken = {"ModelShardMissing": without_second, "ModelConfigContradicts": lying, "ModelPickleOnly": pickled}
    broken |= {"ModelShardDamaged": {**good, SHARDS[0]: large(b"version https://git-lfs.github.com/spec/v1\n", 133)}}
    return {reason: write_folder(place / reason, files) for reason, files in broken.items()}


def _without_template(content: bytes) -> bytes:
    """The same model; the metadata key of its chat template has another name of the same length."""
    name = b"tokenizer.chat_template"
    assert content.count(name) == 1
    return content.replace(name, b"tokenizer.chat_tempIate")

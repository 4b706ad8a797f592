"""Model files: real ones are read as the gguf library reads them, and damaged ones cost neither memory nor time."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gonogo.facts.model import ModelFacts
from gonogo.runtimes.gguf_file import read_model
from gonogo.spec.recipes import find_model
from tests.shell.tiny_model import Shape, write_tiny_model

COUNTS_AT = 8
"""Where the header holds the number of tensors, and 8 bytes later that of metadata keys."""
DEADLINE_S = 1.0


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = Shape(architecture="qwen3", head_length=32, window=128)
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", shape)


def _problem(path: Path) -> tuple[str, str]:
    facts = read_model("asked", str(path))
    assert facts.problem is not None and (facts.tensors, facts.layers) == (None, None)
    return facts.problem.kind, facts.problem.detail


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("which", ["tiny", "embedded"])
def test_a_model_is_read_as_the_gguf_library_reads_it(which: str, tiny: Path) -> None:
    path = str(tiny) if which == "tiny" else find_model("smollm2-135m")
    assert path is not None
    facts, reader = read_model("asked", path), gguf.GGUFReader(path)
    assert facts.problem is None and facts.tensors is not None
    seen = [(tensor.name, tensor.shape, tensor.kind, tensor.size_bytes) for tensor in facts.tensors]
    assert seen == [
        (tensor.name, tuple(int(length) for length in tensor.shape), tensor.tensor_type.name, tensor.n_bytes)
        for tensor in reader.tensors
    ]

    def of(key: str) -> object:
        return reader.fields[key].contents()

    assert (facts.architecture, facts.name) == (of("general.architecture"), of("general.name"))
    assert facts.layers == of(f"{facts.architecture}.block_count")
    assert facts.context_tokens == of(f"{facts.architecture}.context_length")
    assert facts.chat_template == of("tokenizer.chat_template")
    assert facts.vocabulary == len(reader.fields["tokenizer.ggml.tokens"].data)
    assert facts.file_bytes == os.path.getsize(path)
    assert facts.architecture_known is True


def test_the_numbers_that_the_memory_plan_needs_are_there(tiny: Path) -> None:
    facts = read_model("asked", str(tiny))
    numbers = (facts.embedding_length, facts.feed_forward_length, facts.heads, facts.kv_heads, facts.key_length)
    assert numbers == (64, 128, 4, (2, 2), 32)
    assert (facts.sliding_window, facts.vocabulary, facts.parameters) == (128, 260, 115_392)


def test_the_embedded_model_is_read_in_under_a_second_with_little_memory() -> None:
    path = find_model("smollm2-135m")
    program = (
        "import re, sys, time; from gonogo.runtimes.gguf_file import read_model; began = time.process_time();"
        "facts = read_model('x', sys.argv[1]); print(time.process_time() - began, facts.quantization, "
        "re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run((sys.executable, "-c", program, str(path)), capture_output=True, text=True, check=True)
    took, quantization, resident = done.stdout.split()
    assert float(took) < 1.0
    assert quantization == "q4_1"
    assert int(resident) < 120_000


def test_what_is_no_readable_file_is_said_to_be_so(tmp_path: Path) -> None:
    assert _problem(tmp_path / "nothing.gguf") == ("missing", "there is no such file")
    assert _problem(tmp_path) == ("unreadable", "it is a directory without a config.json")
    os.mkfifo(tmp_path / "pipe.gguf")
    assert _problem(tmp_path / "pipe.gguf") == ("unreadable", "it is not a regular file")
    assert _problem(_written(tmp_path / "file", b"x") / "under")[0] == "unreadable"
    assert read_model("asked", "nul\0byte").problem is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for the superuser")
def test_a_file_without_permission_is_unreadable(tmp_path: Path, tiny: Path) -> None:
    path = _written(tmp_path / "closed.gguf", tiny.read_bytes())
    path.chmod(0)
    assert _problem(path) == ("unreadable", "Permission denied")


def test_a_file_of_another_kind_is_not_gguf(tmp_path: Path) -> None:
    assert _problem(_written(tmp_path / "a", b"PK\x03\x04 a zip"))[0] == "not_gguf"
    assert _problem(_written(tmp_path / "b", b"GG"))[0] == "truncated"
    assert _problem(_written(tmp_path / "c", b""))[0] == "truncated"


@pytest.mark.parametrize("part", [0.001, 0.01, 0.05, 0.5, 0.9999])
def test_a_file_cut_short_anywhere_is_truncated(tmp_path: Path, tiny: Path, part: float) -> None:
    content = tiny.read_bytes()
    kind, detail = _problem(_written(tmp_path / "cut", content[: int(len(content) * part)]))
    assert kind == "truncated"
    assert "bytes" in detail or "empty" in detail


@pytest.mark.parametrize("count", [1 << 16 | 1, 1 << 31, (1 << 64) - 1])
@pytest.mark.parametrize("at", [COUNTS_AT, COUNTS_AT + 8])
def test_an_impossible_count_is_corrupt_at_once(tmp_path: Path, tiny: Path, count: int, at: int) -> None:
    content = bytearray(tiny.read_bytes())
    content[at : at + 8] = struct.pack("<Q", count)
    began = time.monotonic()
    assert _problem(_written(tmp_path / "counts", bytes(content)))[0] == "corrupt"
    assert time.monotonic() - began < DEADLINE_S


@pytest.mark.parametrize(
    ("dimensions", "kind", "offset", "said"),
    [
        ((1 << 32, 1 << 32), 0, 0, "impossible shape"),
        ((1 << 63, 2), 0, 0, "impossible shape"),
        ((0,), 0, 0, "impossible shape"),
        ((7,), 2, 0, "no whole number of Q4_0 blocks"),
        ((32,), 4242, 0, "unknown type 4242"),
        ((32,), 0, 1 << 63, "lies at"),
        ((32,), 0, 32, "lies at"),
    ],
)
def test_a_tensor_that_cannot_be_is_corrupt(
    tmp_path: Path, dimensions: tuple[int, ...], kind: int, offset: int, said: str
) -> None:
    tensor = struct.pack("<Q1sI", 1, b"t", len(dimensions)) + struct.pack(f"<{len(dimensions)}Q", *dimensions)
    content = struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + tensor + struct.pack("<IQ", kind, offset)
    found, detail = _problem(_written(tmp_path / "tensor", content + bytes(4096)))
    assert found == "corrupt"
    assert said in detail


def test_what_is_gguf_but_no_whole_model_is_said_to_be_so(tmp_path: Path) -> None:
    def written(name: str, **keys: str | int) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, str(keys.pop("architecture", "llama")))
        for key, value in keys.items():
            add = writer.add_string if isinstance(value, str) else writer.add_uint16
            add(key.replace("__", "."), value)  # type: ignore[operator]
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return tmp_path / name

    assert _problem(written("adapter", general__type="adapter")) == ("unknown", "it holds 'adapter', not a model")
    assert _problem(written("part", split__count=3))[0] == "unknown"
    assert _problem(written("bare")) == ("corrupt", "the metadata key 'llama.block_count' is missing")


def test_big_endian_and_old_versions_are_named(tmp_path: Path) -> None:
    assert _problem(_written(tmp_path / "big", struct.pack(">4sIQQ", b"GGUF", 3, 0, 0)))[1] == "it is big-endian"
    assert _problem(_written(tmp_path / "old", struct.pack("<4sIII", b"GGUF", 1, 0, 0)))[1].startswith("GGUF version 1")


def test_an_unknown_architecture_is_read_and_marked(tmp_path: Path) -> None:
    facts = read_model("asked", str(write_tiny_model(tmp_path / "a.gguf", Shape(architecture="quux"))))
    assert (facts.problem, facts.architecture, facts.architecture_known) == (None, "quux", False)


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 9000), st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8]))),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=MUTATIONS, cut=st.one_of(st.none(), st.integers(0, 300_000)))
def test_no_damage_to_the_bytes_crashes_or_takes_long(
    tmp_path: Path, tiny: Path, mutations: list[tuple[int, bytes]], cut: int | None
) -> None:
    content = bytearray(tiny.read_bytes())
    for at, replacement in mutations:
        content[at : at + len(replacement)] = replacement
    path = _written(tmp_path / "damaged.gguf", bytes(content[:cut]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    facts = read_model("asked", str(path))
    assert time.monotonic() - began < DEADLINE_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    _assert_whole_or_broken(facts)


def _assert_whole_or_broken(facts: ModelFacts) -> None:
    if facts.problem is None:
        assert facts.tensors and facts.layers and facts.embedding_length and facts.vocabulary
        assert sum(tensor.size_bytes for tensor in facts.tensors) <= (facts.file_bytes or 0)
    else:
        assert facts.problem.kind in {"not_gguf", "truncated", "corrupt", "unknown"}
        assert facts.problem.detail

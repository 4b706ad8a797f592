"""Safetensors headers and indexes: what is right is read whole, what the format forbids is refused with its numbers."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.facts.model import Tensor
from gonogo.facts.parse_json import JsonError, parse_object
from gonogo.facts.parse_safetensors import BITS, LARGEST_HEADER_BYTES, SafetensorsError, parse_safetensors
from gonogo.facts.shards import Index, ShardsError, held_against, parse_index, pickle_files, shards_of
from tests.core.safetensors_files import head, header_of, whole

TWO = {"a": ("BF16", (4, 8)), "b": ("F32", (3,))}


def read(content: bytes, file_bytes: int | None = None) -> tuple[Tensor, ...]:
    return parse_safetensors(
        lambda at, count: content[at : at + count], len(content) if file_bytes is None else file_bytes
    )


def refused(content: bytes, file_bytes: int | None = None) -> str:
    with pytest.raises(SafetensorsError) as caught:
        read(content, file_bytes)
    return str(caught.value)


def with_entry(**changes: Any) -> bytes:
    header = header_of(TWO)
    header["b"] |= changes
    return head(header) + bytes(76)


def test_every_tensor_is_read_with_shape_type_and_size_in_the_order_of_the_weights() -> None:
    header = header_of(
        {**TWO, "scalar": ("I64", ()), "none": ("F16", (0, 7)), "packed": ("F4", (2, 3))}, {"format": "pt"}
    )
    shuffled = dict(sorted(header.items(), reverse=True))
    assert read(whole(shuffled)) == (
        Tensor(name="a", shape=(4, 8), kind="BF16", size_bytes=64),
        Tensor(name="b", shape=(3,), kind="F32", size_bytes=12),
        Tensor(name="scalar", shape=(), kind="I64", size_bytes=8),
        Tensor(name="none", shape=(0, 7), kind="F16", size_bytes=0),
        Tensor(name="packed", shape=(2, 3), kind="F4", size_bytes=3),
    )


def test_only_the_header_is_read() -> None:
    content = whole(header_of({"w": ("F32", (1000, 1000))}))
    asked: list[tuple[int, int]] = []

    def look(at: int, count: int) -> bytes:
        asked.append((at, count))
        return content[at : at + count]

    parse_safetensors(look, len(content))
    assert sum(count for _, count in asked) == len(content) - 4_000_000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "0 bytes, too few"),
        (b"1234567", "7 bytes, too few"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        ((LARGEST_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", f"{LARGEST_HEADER_BYTES} are possible"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "are possible"),
        ((9).to_bytes(8, "little") + b"{}", "its header ends at byte 17, the file at 10"),
        ((2).to_bytes(8, "little") + b"[]", "begins with b'[]'"),
        ((0).to_bytes(8, "little"), "begins with b''"),
        (head(b"{"), "not JSON"),
        (head('{"a":1}'.encode("utf-16-le")), "not JSON"),
        (head(b'{"\xff":1}'), "not JSON"),
        (head(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
        (head(b'{"a":' * 30_000), "nested too deep"),
        (head(b'{"a":{},"a":{}}'), "names 'a' twice"),
        (head(b'{"a":{"dtype":"F32","dtype":"F16"}}'), "names 'dtype' twice"),
        (head(b'{"\\ud800":{}}'), "name is impossible"),
        (head(b'{"":{}}'), "name is impossible"),
        (head(b'{"a":{}}'), "has not dtype, shape and data_offsets"),
        (head(b'{"a":7}'), "has not dtype, shape and data_offsets"),
        (head(b'{"__metadata__":{"n":1}}'), "no mapping of texts"),
        (head(b'{"__metadata__":[]}'), "no mapping of texts"),
        (head(b"{" + b"[" * 600_000), "more than"),
        (head(b"{" + b"," * 6_000_000), "more numbers than tensors can have"),
        (with_entry(dtype="F31"), "unknown type 'F31'"),
        (with_entry(dtype=["F32"]), "unknown type"),
        (with_entry(shape=[-3]), "impossible shape [-3]"),
        (with_entry(shape=[3.0]), "impossible shape [3.0]"),
        (with_entry(shape=[True]), "impossible shape [True]"),
        (with_entry(shape=3), "impossible shape 3"),
        (with_entry(shape=[1] * 17), "impossible shape"),
        (with_entry(shape=[2**61, 2**61]), "impossible shape"),
        (with_entry(shape=[2**63]), "impossible shape"),
        (with_entry(dtype="F4"), "no whole number of bytes"),
        (with_entry(shape=[4]), "has 16 bytes, 12 are given"),
        (with_entry(data_offsets=[64]), "impossible offsets"),
        (with_entry(data_offsets=[76, 64]), "impossible offsets"),
        (with_entry(data_offsets=[-12, 0]), "impossible offsets"),
        (with_entry(data_offsets=[60, 72]), "overlaps"),
        (with_entry(data_offsets=[68, 80]), "gap"),
        (with_entry() + b"x", "its tensors need 76 bytes, 77 follow"),
        (with_entry()[:-1], "its tensors need 76 bytes, 75 follow"),
    ],
)
def test_what_the_format_forbids_is_refused_with_what_was_seen(content: bytes, told: str) -> None:
    assert told in refused(content)


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    content = whole(header_of(TWO))
    assert "were there" in refused(content[:20], len(content))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_never_another_error(content: bytes) -> None:
    for told in (content, head(content), head(b"{" + content)):
        with contextlib.suppress(SafetensorsError):
            read(told)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["F32", "BF16", "F4"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "w"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, st.integers(0, 64))
def test_arbitrary_headers_are_never_another_error(value: object, weights: int) -> None:
    try:
        for tensor in read(head(json.dumps(value).encode()) + bytes(weights)):
            assert tensor.size_bytes <= weights
    except SafetensorsError:
        pass


@given(st.data())
@settings(max_examples=200)
def test_one_changed_byte_never_yields_tensors_that_do_not_fill_the_file(data: st.DataObject) -> None:
    content = bytearray(whole(header_of(TWO)))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(content))
    except SafetensorsError:
        return
    assert sum(tensor.size_bytes for tensor in found) == 76


KINDS = st.sampled_from(sorted(kind for kind, bits in BITS.items() if bits % 8 == 0))


@given(
    st.dictionaries(
        st.text("abc.é0", min_size=1, max_size=9), st.tuples(KINDS, st.lists(st.integers(0, 9), max_size=4))
    )
)
def test_what_is_written_right_is_read_back(tensors: dict[str, tuple[str, list[int]]]) -> None:
    found = {tensor.name: (tensor.kind, list(tensor.shape)) for tensor in read(whole(header_of(tensors)))}
    assert found == tensors


def test_the_worst_header_of_ten_megabytes_costs_bounded_memory() -> None:
    worst = head(b'{"a":[' + b"[]," * 524_000 + b"[]]}" + b" " * 8_000_000)
    tracemalloc.start()
    try:
        refused(worst)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def index_of(weight_map: object, **metadata: Any) -> bytes:
    return json.dumps({"metadata": metadata, "weight_map": weight_map}).encode()


def test_an_index_names_its_shards_and_their_sum() -> None:
    found = parse_index(index_of({"x": "m-2.safetensors", "y": "m-1.safetensors"}, total_size=1234.0))
    assert found.shards == ("m-1.safetensors", "m-2.safetensors")
    assert found.total_bytes == 1234
    assert parse_index(index_of({"x": "m.safetensors"}, total_size=True)).total_bytes is None


@pytest.mark.parametrize(
    "shard",
    [
        "../m.safetensors",
        "/etc/m.safetensors",
        "a/../m.safetensors",
        "m.bin",
        "",
        7,
        "a\\m.safetensors",
        "a//m.safetensors",
    ],
)
def test_an_index_cannot_name_a_file_outside_the_repository_nor_one_that_is_no_shard(shard: object) -> None:
    with pytest.raises(ShardsError, match="is no name of a shard"):
        parse_index(index_of({"x": shard}))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"weight_map":{}}', b'{"weight_map":[]}', b"\xff"])
def test_an_index_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(ShardsError) as caught:
        parse_index(content)
    assert caught.value.problem.kind == "shard_damaged"


@given(st.binary(max_size=120) | JSON.map(lambda value: json.dumps({"weight_map": value}).encode()))
def test_arbitrary_indexes_are_never_another_error(content: bytes) -> None:
    with contextlib.suppress(ShardsError):
        parse_index(content)


NUMBERED = [f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ("model.safetensors",)),
        (["model.safetensors", "consolidated.safetensors"], ("model.safetensors",)),
        (["consolidated.safetensors", "params.json"], ("consolidated.safetensors",)),
        (NUMBERED, tuple(NUMBERED)),
        (["weights.safetensors", "adapter_model.safetensors", "sub/x.safetensors"], ("weights.safetensors",)),
    ],
)
def test_without_an_index_the_names_tell_which_files_are_the_weights(
    names: list[str], expected: tuple[str, ...]
) -> None:
    assert shards_of(names, None) == expected


@pytest.mark.parametrize(
    ("names", "kind", "detail"),
    [
        (["pytorch_model.bin", "training_args.bin"], "pickle_only", "pytorch_model.bin"),
        ([f"pytorch_model-{n}.bin" for n in range(5)], "pickle_only", "pytorch_model-2.bin and 2 more"),
        (["consolidated.00.pth"], "pickle_only", "consolidated.00.pth"),
        (["training_args.bin", "README.md"], "no_weights", "none of its 2 files"),
        (["x.gguf"], "no_weights", "GGUF"),
        (["adapter_config.json", "adapter_model.safetensors"], "no_weights", "adapter"),
        (NUMBERED[:2], "shard_missing", NUMBERED[2]),
        (["model-00001-of-99999.safetensors"], "shard_damaged", "99999 parts"),
    ],
)
def test_where_there_are_no_weights_to_use_the_reason_is_told(names: list[str], kind: str, detail: str) -> None:
    with pytest.raises(ShardsError) as caught:
        shards_of(names, None)
    assert caught.value.problem.kind == kind
    assert detail in caught.value.problem.detail


def test_a_shard_that_the_index_names_and_that_is_not_there_is_named() -> None:
    index = Index(weight_map={"a": NUMBERED[0], "b": NUMBERED[1]}, total_bytes=None)
    with pytest.raises(ShardsError, match="shard_missing: model-00002"):
        shards_of([NUMBERED[0], "config.json"], index)


def test_a_shard_without_a_tensor_that_the_index_puts_into_it_is_damaged() -> None:
    index = Index(weight_map={"a": "m.safetensors", "b": "m.safetensors", "c": "n.safetensors"}, total_bytes=None)
    held_against(index, "m.safetensors", {"a", "b", "more"})
    with pytest.raises(ShardsError, match="puts b into it"):
        held_against(index, "m.safetensors", {"a"})


def test_pickles_are_told_beside_safetensors_but_not_what_only_training_needs() -> None:
    assert pickle_files(["a.safetensors", "pytorch_model.bin", "optimizer.pt", "sub/x.bin"]) == ("pytorch_model.bin",)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_json_is_never_another_error(content: bytes) -> None:
    with contextlib.suppress(JsonError):
        assert isinstance(parse_object(content), dict)


@pytest.mark.parametrize(
    "content",
    [b'{"a":' * 100 + b"1" + b"}" * 100, b'{"a":' * 100_000, b'{"a":"\\ud800"}', b"7", b"\xff\xfe{\0}\0", b""],
)
def test_json_that_cannot_be_used_or_written_again_is_refused(content: bytes) -> None:
    with pytest.raises(JsonError):
        parse_object(content)

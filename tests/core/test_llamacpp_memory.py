"""llama.cpp's buffers: planned beside what the real engine printed for models without weights, and the rules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.engines.ggml_rehearsal import Graph, Value, rehearse
from gonogo.engines.llamacpp_drawing import Era
from gonogo.engines.llamacpp_facts import shape_from
from gonogo.engines.llamacpp_families import FAMILIES
from gonogo.engines.llamacpp_memory import HOST, LlamaMemory, cache_row_bytes, memory_of, weights_of
from gonogo.engines.llamacpp_names import layout_known, shape_of
from gonogo.engines.llamacpp_quantize import MIXTURES, tensor_bytes
from gonogo.engines.llamacpp_settings import LlamaSettings
from gonogo.engines.llamacpp_shape import GgufShape
from gonogo.facts.catalogue import known_models
from gonogo.facts.model import ModelFacts, Tensor
from gonogo.facts.parse_config import parse_config
from gonogo.facts.parse_gguf import Array, Header
from gonogo.facts.parse_model import model_facts
from gonogo.words import Language, message

MIB = 1024**2
PRINTED_TO = 0.0051
CASES = sorted((Path(__file__).parent.parent / "cases" / "engines" / "llamacpp" / "buffers").glob("*.json"))


def _shape(case: Path) -> GgufShape:
    """The described model, read as a file's header would be."""
    model = json.loads(case.read_text())
    metadata = {f"{model['architecture']}.{key}": _value(value) for key, value in model["metadata"].items()}
    metadata["general.architecture"] = model["architecture"]
    shapes = dict(model["tensors"])
    for group in model["layers"]:
        for layer in range(group["first"], group["first"] + group["count"]):
            shapes |= {f"blk.{layer}.{name}": extents for name, extents in group["tensors"].items()}
    tensors = tuple(
        Tensor(name=name, shape=tuple(extents), kind="F16", size_bytes=1) for name, extents in shapes.items()
    )
    return shape_from(model_facts(Header(metadata=metadata, tensors=tensors, data_start=0), (), {}))


def _value(value: Any) -> Any:
    return Array(length=len(value), numbers=tuple(value)) if isinstance(value, list) else value


def _memory(shape: GgufShape, settings: LlamaSettings) -> LlamaMemory:
    return memory_of(shape, weights_of(shape, "Q8_0"), settings)


def _of(name: str) -> GgufShape:
    return _shape(next(case for case in CASES if case.stem == name))


def _known(name: str) -> GgufShape:
    return shape_of(parse_config(known_models()[name].config))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_every_buffer_is_planned_to_the_digit_that_the_engine_printed(case: Path) -> None:
    shape = _shape(case)
    for one in json.loads(case.read_text())["cases"]:
        memory, printed = _memory(shape, LlamaSettings(**one["settings"])), one["printed"]
        seen = {
            "kv": sum(size for size, _, _ in printed["kv"]),
            "output": printed["output_mib"],
            "compute": printed["compute_mib"],
            "recurrent_state": printed.get("states_mib", 0),
        }
        planned = {
            "kv": memory.bytes_of("kv_cache") / MIB,
            "output": memory.bytes_of("output") / MIB,
            "compute": memory.bytes_of("compute") / MIB,
            "recurrent_state": memory.bytes_of("recurrent_state") / MIB,
        }
        assert memory.exact
        assert planned == pytest.approx(seen, abs=PRINTED_TO), one["settings"]


def test_every_architecture_of_the_table_was_held_against_an_engine() -> None:
    assert set(FAMILIES) == {json.loads(case.read_text())["architecture"] for case in CASES}


def test_an_architecture_that_nobody_held_against_gets_a_bound_that_says_so() -> None:
    shape = _of("qwen2")
    settings = LlamaSettings(context_tokens=8192, sequences=2)
    known, unknown = _memory(shape, settings), _memory(replace(shape, architecture="novel"), settings)
    assert unknown.bytes_of("compute") > 2 * known.bytes_of("compute") and not unknown.exact
    assert "not held against" in next(one.term.source for one in unknown.placed if one.term.name == "compute")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_bound_is_above_the_truth_for_every_architecture_that_was_held_against(case: Path) -> None:
    for one in json.loads(case.read_text())["cases"]:
        settings = LlamaSettings(**one["settings"])
        bound = _memory(replace(_shape(case), architecture="novel"), settings).bytes_of("compute")
        assert bound >= one["printed"]["compute_mib"] * MIB, one["settings"]


@given(
    context=st.integers(256, 65536),
    more=st.integers(0, 65536),
    sequences=st.integers(1, 8),
    unified=st.booleans(),
    flash=st.booleans(),
    name=st.sampled_from(["gemma2", "qwen2", "deepseek2-groups", "gpt-oss"]),
)
def test_more_context_never_takes_less_memory(
    context: int, more: int, sequences: int, unified: bool, flash: bool, name: str
) -> None:
    context = max(context, sequences * 256)
    less = LlamaSettings(context_tokens=context, sequences=sequences, unified=unified, flash_attention=flash)
    shape = _of(name)
    plan, larger = _memory(shape, less), _memory(shape, replace(less, context_tokens=context + more))
    for term in ("kv_cache", "output"):
        assert larger.bytes_of(term) >= plan.bytes_of(term)


@given(context=st.integers(1, 1 << 20), sequences=st.integers(1, 64))
def test_a_context_is_divided_and_rounded_up_to_256(context: int, sequences: int) -> None:
    split = LlamaSettings(context_tokens=context, sequences=sequences)
    shared = replace(split, unified=True)
    assert split.cells % 256 == 0 and split.cells * sequences >= context
    assert shared.cells == -(-context // 256) * 256 and shared.streams == 1
    assert split.tokens % sequences == 0 and split.outputs <= max(split.tokens, 1)


def test_the_odd_division_of_the_ground_truth() -> None:
    settings = LlamaSettings(context_tokens=1000, sequences=3)
    assert (settings.cells * settings.streams, settings.tokens, settings.outputs) == (1536, 513, 3)


def test_a_window_is_kept_once_per_sequence_of_a_shared_cache_and_never_exceeds_the_context() -> None:
    settings = LlamaSettings(context_tokens=32768, sequences=4, unified=True)
    assert settings.window_cells(1024) == 4 * 1024 + 512
    assert replace(settings, unified=False).window_cells(1024) == 1536
    assert replace(settings, whole_windows=True).window_cells(1024) == 32768
    assert LlamaSettings(context_tokens=512).window_cells(4096) == 512


@pytest.mark.parametrize(("kind", "size"), [("f32", 4096), ("F16", 2048), ("q8_0", 1088), ("q4_0", 576), ("q5_1", 768)])
def test_a_row_of_the_cache_is_whole_blocks(kind: str, size: int) -> None:
    assert cache_row_bytes(1024, kind) == size


@pytest.mark.parametrize(("elements", "kind"), [(1000, "q8_0"), (1024, "fp8")])
def test_a_cache_that_llama_cpp_would_refuse_is_refused(elements: int, kind: str) -> None:
    with pytest.raises(ValueError, match=kind):
        cache_row_bytes(elements, kind)


def test_words_stay_on_the_host_and_the_output_goes_where_the_last_layer_is() -> None:
    shape, settings = _known("Qwen/Qwen3-30B-A3B"), LlamaSettings(context_tokens=4096, offloaded=None)
    memory = _memory(shape, settings)
    assert memory.places == ("device 0", HOST)
    assert memory.bytes_of("weights", HOST) == tensor_bytes((2048, 151936), "Q8_0")
    assert memory.bytes_of("kv_cache", HOST) == 0 and memory.bytes_of("output", HOST) == memory.bytes_of("output")


def test_a_tied_output_is_there_twice_once_it_is_offloaded() -> None:
    shape = _of("llama-tied")
    host = _memory(shape, LlamaSettings(context_tokens=4096))
    device = _memory(shape, LlamaSettings(context_tokens=4096, offloaded=None))
    twice = tensor_bytes((576, 49152), "Q8_0")
    assert device.bytes_of("weights") - host.bytes_of("weights") == pytest.approx(twice, rel=0.01)


def test_layers_that_are_not_offloaded_stay_on_the_host_with_their_cache() -> None:
    shape = _of("qwen2")
    memory = _memory(shape, LlamaSettings(context_tokens=4096, offloaded=3))
    assert memory.bytes_of("kv_cache", HOST) == memory.bytes_of("kv_cache", "device 0")  # 2 of 4 layers, and the output
    assert not memory.exact


def test_two_accelerators_share_the_layers() -> None:
    memory = _memory(_of("llama-tied"), LlamaSettings(context_tokens=4096, offloaded=None, devices=2))
    assert {"device 0", "device 1"} < set(memory.places)
    assert memory.bytes_of("kv_cache", "device 0") == pytest.approx(memory.bytes_of("kv_cache", "device 1"), rel=0.2)


def test_an_old_build_on_one_accelerator_is_what_a_public_log_printed() -> None:
    """Qwen3-Coder-30B-A3B Q8_0, 65,536 tokens: CUDA0 300.75 MiB, CUDA_Host 132.01 MiB."""
    settings = LlamaSettings(
        context_tokens=65536, sequences=4, unified=True, offloaded=None, all_outputs=True, era=Era.ROWS
    )
    memory = _memory(_known("Qwen/Qwen3-30B-A3B"), settings)
    assert memory.bytes_of("compute", "device 0") / MIB == pytest.approx(300.75, abs=PRINTED_TO)
    assert memory.bytes_of("compute", HOST) / MIB == pytest.approx(132.01, abs=PRINTED_TO)


def test_a_projector_and_the_cache_of_former_prompts_are_terms_of_their_own() -> None:
    settings = LlamaSettings(context_tokens=4096, projector_bytes=7, prompt_cache_bytes=8192 * MIB)
    memory = _memory(_of("qwen2vl"), settings)
    assert memory.bytes_of("projector") == 7 and memory.bytes_of("prompt_cache", HOST) == 8192 * MIB
    assert memory.plan.total_bytes == memory.bytes_of()


@pytest.mark.parametrize(
    ("model", "quantization", "mebibytes"),
    [
        ("meta-llama/Llama-2-7b-hf", "Q4_K_M", 3820.94 + 70.31),
        ("Qwen/Qwen3-VL-8B-Instruct", "Q8_0", 8300.36),
        ("Qwen/Qwen3-30B-A3B", "Q8_0", 30658.12 + 315.30),
    ],
)
def test_weights_by_the_quantizers_rules_are_what_logs_printed(model: str, quantization: str, mebibytes: float) -> None:
    shape = _known(model)
    assert layout_known(shape)
    assert sum(weights_of(shape, quantization).values()) / MIB == pytest.approx(mebibytes, abs=0.03)


@pytest.mark.parametrize("quantization", sorted(MIXTURES))
def test_every_mixture_lies_between_one_and_a_half_and_thirty_two_bits(quantization: str) -> None:
    shape = _known("Qwen/Qwen3-8B")
    bits = 8 * sum(weights_of(shape, quantization).values()) / 8.19e9
    assert 1.5 < bits < 32.5


def test_an_unknown_quantization_is_refused() -> None:
    with pytest.raises(ValueError, match="Q9_X"):
        weights_of(_of("qwen2"), "Q9_X")


def test_a_hybrid_keeps_a_cache_in_few_layers_and_states_in_the_others() -> None:
    shape = _known("nvidia/Qwen3.6-27B-NVFP4")
    memory = _memory(shape, LlamaSettings(context_tokens=32768))
    assert memory.bytes_of("kv_cache") == 2048 * MIB  # 16 of 64 layers, as a public log printed
    assert memory.bytes_of("recurrent_state") > 0 and memory.exact


def test_latent_attention_keeps_no_values() -> None:
    memory = _memory(_known("zai-org/GLM-5"), LlamaSettings(context_tokens=524288))
    assert memory.bytes_of("kv_cache") == 44928 * MIB


def test_an_indexer_keeps_keys_of_its_own_in_the_layers_that_have_one() -> None:
    """A public log of a 78-layer model: 2,688 MiB in 21 layers."""
    settings = LlamaSettings(context_tokens=524288)
    shape = shape_of(parse_config(known_models()["zai-org/GLM-5.2"].config), index_layers=21)
    assert _memory(shape, settings).bytes_of("indexer_cache") == 2688 * MIB
    every = _memory(replace(shape, index_layers=None), settings)
    assert every.bytes_of("indexer_cache") == 78 * 128 * MIB
    assert "upper bound" in next(one.term.source for one in every.placed if one.term.name == "indexer_cache")


def _chain(*sizes: int) -> Graph:
    """Each value is computed from the one before."""
    graph = Graph()
    value = Value(shape=(sizes[0], 1, 1, 1), given=True)
    for size in sizes[1:]:
        value = Value(shape=(size, 1, 1, 1), sources=(value,))
    graph.expand(value)
    return graph


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=20))
def test_a_chain_needs_at_least_its_two_largest_neighbours_and_at_most_all(sizes: list[int]) -> None:
    padded = [-(-size * 4 // 32) * 32 for size in sizes]
    needed = rehearse(_chain(*sizes))
    assert max(padded[at] + padded[at + 1] for at in range(len(padded) - 1)) <= needed <= sum(padded)


def test_memory_that_is_free_again_is_used_again_and_written_over_where_the_operation_can() -> None:
    assert rehearse(_chain(8, 8, 8, 8)) == 2 * 32
    given_value = Value(shape=(8, 1, 1, 1), given=True)
    over = Value(shape=(8, 1, 1, 1), sources=(given_value,), may_overwrite=True)
    graph = Graph()
    graph.expand(over)
    assert rehearse(graph) == 32


def test_a_view_keeps_what_it_looks_into() -> None:
    base = Value(shape=(8, 1, 1, 1), given=True)
    view = Value(shape=(4, 1, 1, 1), base=base, sources=(base,))
    first, second = (Value(shape=(8, 1, 1, 1), sources=(one,)) for one in (base, view))
    last = Value(shape=(8, 1, 1, 1), sources=(first, second))
    graph = Graph()
    graph.expand(last)
    assert rehearse(graph) == 4 * 32 - 32  # the base until the second, both, and the last in the base's place


def test_layers_that_only_guess_ahead_take_no_memory() -> None:
    shape, settings = _of("glm4moe-draft"), LlamaSettings(context_tokens=4096)
    assert len(shape.kv_heads) == 4 and "blk.4.attn_q.weight" in shape.tensors
    assert _memory(shape, settings).bytes_of("weights") == _memory(_of("glm4moe"), settings).bytes_of("weights")


def test_a_file_of_an_older_converter_gets_a_bound() -> None:
    shape = _of("deepseek2-lite")
    old = {name: extents for name, extents in shape.tensors.items() if "attn_k_b" not in name}
    old["blk.0.attn_kv_b.weight"] = (512, 4096)
    memory = _memory(replace(shape, tensors=old, latent_rank=None), LlamaSettings(context_tokens=4096))
    assert not memory.exact and memory.bytes_of("compute") > 0


def test_windows_that_a_file_lists_layer_by_layer_go_before_the_rhythm() -> None:
    model = ModelFacts(
        asked="a-model",
        architecture="gemma3",
        layers=3,
        embedding_length=256,
        heads=4,
        kv_heads=(4, 4, 4),
        sliding_window=512,
        windowed_layers=(True, False, True),
        tensors=(),
    )
    assert shape_from(model).windowed == (True, False, True)
    assert shape_from(replace(model, windowed_layers=None)).windowed == (True, True, True)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_term_has_words(lang: Language) -> None:
    settings = LlamaSettings(context_tokens=4096, projector_bytes=1, prompt_cache_bytes=1)
    shapes = (_of("qwen35"), _known("zai-org/GLM-5"))
    names = {one.term.name for shape in shapes for one in _memory(shape, settings).placed}
    assert names >= {"recurrent_state", "indexer_cache", "projector", "prompt_cache"}
    assert all(message(f"term.{name}", lang) for name in names)


def _suffixes(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.split(".", 2)[2] if name.startswith("blk.") else name for name in names)


def test_the_tensors_of_a_configuration_are_those_that_the_loader_took() -> None:
    """The loader refuses a file that lacks a tensor or has one too many: the ghosts' names are all of them."""
    took: dict[str, set[str]] = {}
    for case in CASES:
        shape = _shape(case)
        took.setdefault(shape.architecture, set()).update(_suffixes(shape.tensors))
    held = set()
    for known in known_models().values():
        try:
            shape = shape_of(parse_config(known.config))
        except ValueError:
            continue
        if layout_known(shape):
            held.add(shape.architecture)
            anywhere = {"output.weight", *(f"ffn_{part}.weight" for part in ("gate", "up", "down"))}
            assert _suffixes(shape.tensors) - anywhere <= took[shape.architecture], known.name
    assert len(held) > 15


def test_a_header_tells_windows_states_and_indexers() -> None:
    metadata: dict[str, Any] = {
        "general.architecture": "x",
        "x.block_count": 4,
        "x.embedding_length": 64,
        "x.vocab_size": 32,
        "x.attention.head_count": 4,
        "x.full_attention_interval": 2,
        "x.attention.sliding_window_pattern": Array(length=4, numbers=(True, False, True, False)),
        "x.attention.indexer.key_length": 128,
        "x.attention.indexer.types": Array(length=4, numbers=(1, 0, 0, 1)),
        "x.ssm.inner_size": 128,
        "x.ssm.state_size": 16,
        "x.ssm.conv_kernel": 4,
        "x.ssm.group_count": 2,
    }
    tensors = (Tensor(name="t", shape=(1,), kind="F32", size_bytes=4),)
    facts = model_facts(Header(metadata=metadata, tensors=tensors, data_start=0), (), {})
    assert facts.kv_heads == (0, 4, 0, 4) and facts.windowed_layers == (True, False, True, False)
    assert (facts.index_length, facts.index_layers) == (128, 2)
    assert facts.state_elements == 3 * (128 + 2 * 2 * 16) + 16 * 128

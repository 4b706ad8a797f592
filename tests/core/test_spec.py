"""What must hold for every spec file, whatever stands in it."""

from __future__ import annotations

import string

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gonogo.spec import Spec
from gonogo.spec.load import SpecMistakes, decode, parse
from gonogo.spec.mistakes import ENGLISH, MOST_MISTAKES
from gonogo.spec.model import service_name
from gonogo.spec.tree import MOST_BYTES

FIELDS = ("service", "model", "quantization", "replicas", "expect", "hosts", "gateway", "probes", "min", "port")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["32k", "local"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
YAML_LIKE = st.text(
    alphabet=string.ascii_lowercase[:6] + "0189.:-,[]{}&*!|>'\"%@#?\\\n\t ~<é\u2028\x85\x00U", max_size=60
)


def mistakes(text: str) -> tuple[str, ...]:
    """Either the reasons of the mistakes in `text`, or nothing when it is right."""
    try:
        assert isinstance(parse(text, "gonogo.yaml"), Spec)
    except SpecMistakes as error:
        assert error.mistakes
        for mistake in error.mistakes:
            assert mistake.line >= 1
            assert mistake.column >= 1
            assert str(mistake).startswith(f"gonogo.yaml:{mistake.line}:{mistake.column}: ")
        return tuple(mistake.reason for mistake in error.mistakes)
    return ()


@given(text=st.text(max_size=200) | YAML_LIKE | YAML_LIKE.map("model: x\n{}".format))
@settings(max_examples=600, deadline=None)
def test_whatever_the_text_either_a_spec_or_its_mistakes_come_back(text: str) -> None:
    mistakes(text)


@given(data=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_values_either_a_spec_or_its_mistakes_come_back(data: dict[str, object]) -> None:
    mistakes(yaml.safe_dump(data, allow_unicode=True))


@given(content=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_the_bytes_either_text_or_one_mistake_comes_back(content: bytes) -> None:
    try:
        text = decode(content, "gonogo.yaml")
    except SpecMistakes as error:
        assert [mistake.reason for mistake in error.mistakes] == ["NotText"]
        return
    assert text.encode() in (content, content.removeprefix(b"\xef\xbb\xbf"))


@given(model=st.text(min_size=1, max_size=300))
@settings(max_examples=300, deadline=None)
def test_every_model_gives_a_valid_service_name(model: str) -> None:
    name = service_name(model)
    assert Spec(service=name, model="m").service == name


def test_a_service_name_keeps_what_can_be_kept_of_the_model() -> None:
    assert service_name("smollm2-135m") == "smollm2-135m"
    assert service_name("/srv/models/Qwen2.5-0.5B_Q4_K_M.gguf") == "qwen2.5-0.5b-q4-k-m"
    assert service_name("C:\\models\\My Model.GGUF") == "my-model"
    assert service_name("split-00001-of-00003.gguf") == "split"
    assert service_name("模型.gguf") == "model"


def test_a_file_above_the_limit_is_not_read_at_all() -> None:
    assert mistakes("#" * (MOST_BYTES + 1)) == ("TooLarge",)
    assert mistakes("é" * (MOST_BYTES // 2 + 1)) == ("TooLarge",)
    with pytest.raises(SpecMistakes, match="at most 1048576"):
        decode(b"\xff" * (MOST_BYTES + 1), "gonogo.yaml")


def test_a_flood_of_mistakes_is_cut_and_says_so() -> None:
    with pytest.raises(SpecMistakes) as caught:
        parse("model: a\n" + "".join(f"wrong{number}: 1\n" for number in range(150)), "gonogo.yaml")
    assert len(caught.value.mistakes) == MOST_MISTAKES
    assert caught.value.left_out == 150 - MOST_MISTAKES
    assert [mistake.line for mistake in caught.value.mistakes] == list(range(2, 2 + MOST_MISTAKES))


def test_aliases_of_a_large_text_do_not_multiply_memory() -> None:
    bomb = 'model: &a "' + "x" * 500_000 + '"\nprobes: [' + ", ".join(["*a"] * 1900) + "]\n"
    assert mistakes(bomb) == ("AliasBomb",)


def test_a_parsed_spec_survives_the_store_unchanged() -> None:
    text = (
        "model: m\nreplicas: 2\nexpect: {context_tokens: 32k}\ngateway: {hostnames: [a.example]}\n"
        "quantization: q8_0\nprobes: [{name: a, prompt: b, expect_pattern: c}]\n"
    )
    spec = parse(text, "gonogo.yaml")
    stored = Spec.model_validate_json(spec.model_dump_json())
    assert stored == spec
    assert stored.digest() == spec.digest()


def test_the_same_address_written_in_two_ways_is_the_same_spec() -> None:
    long, short = (parse(f'model: m\ngateway: {{address: "{a}"}}', "f") for a in ("0:0:0:0:0:0:0:1", "::1"))
    assert long.digest() == short.digest()


def test_every_sentence_names_only_values_that_a_mistake_may_carry() -> None:
    known = ("field", "seen", "allowed", "nearest", "first", "min", "max", "problem")
    for variant, sentence in ENGLISH.items():
        fields = {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}
        assert fields <= set(known), variant

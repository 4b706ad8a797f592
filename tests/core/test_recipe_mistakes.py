"""Mistakes in a recipe: each stands where the user wrote it, union or not, and says what would be right."""

from __future__ import annotations

import pytest
import yaml

from gonogo.spec.load import SpecMistakes
from gonogo.spec.recipe import load_recipe
from gonogo.spec.recipes import texts


def hub_text(**changes: object) -> str:
    data = yaml.safe_load(texts()["autoglm-phone-9b.yaml"])
    data.update(changes)
    return yaml.safe_dump({name: value for name, value in data.items() if value is not None}, allow_unicode=True)


def mistakes(text: str) -> set[tuple[str, str]]:
    with pytest.raises(SpecMistakes) as caught:
        load_recipe(text, "r.yaml")
    return {(each.reason, each.field) for each in caught.value.mistakes}


def test_a_wrong_kind_of_probe_names_the_kinds_there_are() -> None:
    with pytest.raises(SpecMistakes) as caught:
        load_recipe(hub_text(probes=[{"kind": "groundin", "name": "a", "prompt": "b"}]), "r.yaml")
    only = caught.value.mistakes[0]
    assert (only.reason, only.field) == ("NotAllowed", "probes[0].kind")
    assert only.values["nearest"] == "grounding"


def test_mistakes_inside_a_probe_and_a_source_stand_where_the_user_wrote_them() -> None:
    probe = {"kind": "no_repetition", "name": "A b", "prompt": "b", "most_repeats": 0, "max_tokens": 5, "extra": 1}
    found = mistakes(hub_text(probes=[probe], source={"hugging_face": "no-owner", "modelscop": "a/b"}))
    assert found == {
        ("BadName", "probes[0].name"),
        ("OutOfRange", "probes[0].most_repeats"),
        ("UnknownField", "probes[0].extra"),
        ("Refused", "source.hugging_face"),
        ("UnknownField", "source.modelscop"),
    }


def test_a_missing_threshold_is_named() -> None:
    probe = {"kind": "warmed_completion", "name": "a", "prompt": "b", "max_tokens": 5}
    assert mistakes(hub_text(probes=[probe])) == {("MissingField", "probes[0].within_s")}


def test_a_range_that_is_none_and_an_engine_that_nobody_described_are_mistakes() -> None:
    data = yaml.safe_load(texts()["autoglm-phone-9b.yaml"])
    data["engines"]["vllm"]["versions"] = "0.12 or later"
    assert mistakes(yaml.safe_dump(data)) == {("BadVersions", "engines.vllm.versions")}
    assert mistakes(hub_text(engine="tgi")) == {("UnknownWord", "engine")}
    option = {"name": "none", "engine": "tgi", "how": "checkpoint", "official": "yes", "source": "s"}
    assert mistakes(hub_text(quantizations=[option])) == {("WrongType", "quantizations[0].official")}
    assert mistakes(hub_text(quantizations=[option | {"official": True}])) == {
        ("UnknownWord", "quantizations[0].engine")
    }


def test_two_probes_of_one_name_an_unknown_family_and_words_for_numbers_are_mistakes() -> None:
    data = yaml.safe_load(texts()["autoglm-phone-9b.yaml"])
    twice = [*data["probes"], data["probes"][0]]
    assert mistakes(hub_text(probes=twice)) == {("DuplicateName", f"probes[{len(twice) - 1}].name")}
    assert mistakes(hub_text(images=data["images"] | {"family": "clip"})) == {("UnknownWord", "images.family")}
    assert mistakes(hub_text(clients=data["clients"] | {"top_p": "much"})) == {("WrongType", "clients.top_p")}
    assert mistakes(hub_text(clients=data["clients"] | {"top_p": 0})) == {("OutOfRange", "clients.top_p")}


def test_a_known_bad_version_without_a_link_is_a_mistake() -> None:
    data = yaml.safe_load(texts()["autoglm-phone-9b.yaml"])
    del data["engines"]["vllm"]["known_bad"][0]["link"]
    data["engines"]["vllm"]["flags"][0].pop("why")
    assert mistakes(yaml.safe_dump(data)) == {
        ("MissingField", "engines.vllm.known_bad[0].link"),
        ("MissingField", "engines.vllm.flags[0].why"),
    }

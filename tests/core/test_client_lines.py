"""Lines to paste: whole, quoted for shell and Python, with the key only where it was given."""

from __future__ import annotations

import ast
import shlex

import pytest

from gonogo.spec.recipe_parts import Program
from gonogo.spec.recipes import recipes
from gonogo.words import has_message
from gonogo.words.client_lines import Access, ClientLines, client_lines, trust_line

ODD = '/home of/it\'s "mine"/$HOME/ca.crt'
URL = "https://127.0.0.1:8443/v1"
KEYLESS = Access(endpoint=URL, ca_file=ODD, service="phone")
KEYED = Access(endpoint=URL, ca_file=ODD, service="phone", key="gng_abc_def")
EVERY = tuple(Program)


def by_name(access: Access) -> dict[str, ClientLines]:
    return {one.name: one for one in client_lines(access, EVERY)}


@pytest.mark.parametrize("access", [KEYED, KEYLESS], ids=["keyed", "keyless"])
@pytest.mark.parametrize("name", ["curl", "openai", *(one.value for one in Program)])
def test_each_client_has_its_words_the_base_url_the_ca_the_model_and_the_key(name: str, access: Access) -> None:
    client = by_name(access)[name]
    assert has_message(f"clients.{name.replace('-', '_')}")
    text = "\n".join(client.lines)
    words = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)] if (
        name in ("openai", "phone-agent")
    ) else [part for word in shlex.split(text) for part in (word, word.partition("=")[2])]  # fmt: skip
    assert ODD in words and "phone" in text
    assert URL in words or f"{URL}/chat/completions" in words
    assert ("gng_abc_def" in text) == (access.key is not None)
    assert ("GONOGO_API_KEY" in text) == (access.key is None)


def test_a_key_is_an_option_of_no_program_that_has_a_variable_for_it() -> None:
    for name in ("open-autoglm", "autoglm-gui"):
        (line,) = by_name(KEYED)[name].lines
        before, _, options = line.partition(" --base-url ")
        assert "gng_abc_def" in before and "gng_abc_def" not in options


def test_only_the_lines_that_set_ssl_cert_file_are_said_to_replace_other_cas() -> None:
    for client in client_lines(KEYED, EVERY):
        assert client.replaces_trust == any("SSL_CERT_FILE" in line for line in client.lines), client.name


def test_both_cas_are_joined_from_the_systems_file_or_certifis() -> None:
    assert shlex.split(trust_line(KEYED, "/etc/public cas.pem")) == [
        "cat",
        "/etc/public cas.pem",
        ODD,
        ">",
        "trusted.crt",
    ]
    assert trust_line(KEYED, None).startswith('cat "$(python3 -m certifi)" ')


def test_a_recipe_names_the_programs_that_are_made_for_its_model() -> None:
    assert recipes()["autoglm-phone-9b"].clients.programs == EVERY
    assert recipes()["smollm2-135m"].clients.programs == ()
    named = {name for name, recipe in recipes().items() if recipe.clients.programs}
    assert named == {"autoglm-phone-9b", "autoglm-phone-9b-multilingual"}

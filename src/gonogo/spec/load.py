"""YAML text → `Spec`, or every mistake at once, each with its line and column.

The model judges; this file only translates its answers. Not here: reading YAML (`tree.py`), limits (`model.py`),
sentences (`mistakes.py`, `words/spec.yaml`), and opening files: the text is given.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from gonogo.spec.mistakes import Mistake, SpecMistakes
from gonogo.spec.model import Spec, service_name
from gonogo.spec.part import Part
from gonogo.spec.recipe_probes import QUESTION
from gonogo.spec.schema import Wanted, known_fields, wanted
from gonogo.spec.tree import Path, Place, Tree, decode, read_tree

__all__ = ["Mistake", "SpecMistakes", "decode", "parse", "read"]

Kind = TypeVar("Kind", bound=Part)

OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "name": "service",
        "count": "replicas",
        "endpoints": "external",
        "upstreams": "external",
        "servers": "external",
        "lb_policy": "balancing",
        "connect_timeout": "connect_timeout_s",
        "concurrency": "concurrent_requests",
        "parallel": "concurrent_requests",
        "max_model_len": "context_tokens",
        "ctx_size": "context_tokens",
        "n_ctx": "context_tokens",
        "context": "context_tokens",
        "context_length": "context_tokens",
        "quant": "quantization",
        "dtype": "quantization",
        "broker": "queue",
        "broker_url": "url",
        "password": "password_file",
        "host": "address",
        "bind": "address",
        "tls_cert": "certificate_file",
        "cert_file": "certificate_file",
        "tls_key": "key_file",
        "expect_regex": "expect_pattern",
        "expected": "expect_pattern",
        "question": "prompt",
    }
)
"""What other tools and people call our fields."""

WITHOUT_MESSAGE = frozenset(
    {
        *("NotAnAddress", "BadPattern", "BadVersions", "MinAboveMax", "MissingField", "DuplicateName", "UnknownWord"),
        *(
            "NotAQueue",
            "PasswordInUrl",
            "OnlyWithQueue",
        ),
        *("NotAServer", "DuplicateServer", "NotWithExternal", "OnlyWithExternal"),
        *("NotAnApi", "DuplicateParameter", "NotForFallback", "ParametersLack"),
    }
)
"""Reasons that the model's own validators name; their values come with them."""


def parse(text: str, filename: str) -> Spec:
    """The spec in `text`. Raises SpecMistakes with everything that is wrong, in the order of the file."""
    return read(text, filename, Spec)


def read(text: str, filename: str, kind: type[Kind]) -> Kind:
    """One file of any kind of `Part`, judged as `parse` judges a spec. Raises SpecMistakes."""
    tree = read_tree(text, filename)
    if tree.data is None:
        tree.mistake("Empty", tree.values[()])
        raise SpecMistakes(tree.mistakes)
    data = tree.data
    if kind is Spec and isinstance(data, dict) and "service" not in data:
        model = data.get("model")
        data = {**data, "service": service_name(model if isinstance(model, str) else "")}
    try:
        # JSON because only there lists may be tuples and words may be enums while everything else stays strict
        part = kind.model_validate_json(json.dumps(data))
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            _Translation(tree, kind, found).note()
        raise SpecMistakes(tree.mistakes) from None
    if tree.mistakes:
        raise SpecMistakes(tree.mistakes)
    return part


class _Translation:
    """One error of the model as a mistake in the file."""

    def __init__(self, tree: Tree, kind: type[Part], error: Any) -> None:
        self._tree = tree
        self._kind = kind
        self._type: str = error["type"]
        self._context: Mapping[str, Any] = error.get("ctx", {})
        place, self._tags = _without_tags(tree, kind, error["loc"])
        self._asked: Path = (*place, *_steps(self._context.get("at", "")))
        if self._type == "union_tag_invalid":
            self._asked = (*self._asked, "kind")
        # `replicas: 0` is judged as replicas.min and replicas.max: speak of what stands in the file
        self._path = self._asked
        while self._path not in tree.values:
            self._path = self._path[:-1]
        self._place: Place = tree.values[self._path]
        self._wanted: Wanted = wanted(kind, self._path, self._tags)

    def note(self) -> None:
        """Note the mistake, except where reading the YAML had already found one: its value is not the user's."""
        if self._path in self._tree.spoiled or self._only_its_entries_are_wrong():
            return
        if self._type == "extra_forbidden":
            self._unknown_field()
        elif self._type in ("missing", "MissingField"):
            self._missing_field()
        elif self._type in WITHOUT_MESSAGE:
            self._validator()
        elif self._type in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
            self._mistake("OutOfRange", seen=self._place.seen, allowed=self._wanted.range)
        elif self._type in ("enum", "literal_error"):
            self._choice()
        elif self._type == "union_tag_invalid":
            tags = re.findall(r"'(\w+)'", str(self._context.get("expected_tags")))
            self._choice(tuple(tag for tag in tags if tag != QUESTION))  # which is what has no kind
        elif self._type in ("string_too_long", "string_too_short"):
            self._length()
        elif self._type in ("too_long", "too_short"):
            self._entries()
        elif self._type == "string_pattern_mismatch":
            self._name()
        elif self._type.endswith("_type"):
            self._wrong_type()
        else:
            self._mistake("Refused", seen=self._place.seen, problem=self._type.replace("_", " "))

    def _only_its_entries_are_wrong(self) -> bool:
        """A list counts as too short when its only entry is wrong; the entry has a mistake of its own."""
        return self._type == "too_short" and (*self._path, 0) in self._tree.values

    def _mistake(self, variant: str, **values: str) -> None:
        self._tree.mistake(variant, self._place, self._path, **values)

    def _unknown_field(self) -> None:
        name = str(self._path[-1])[:60]
        possible = wanted(self._kind, self._path[:-1], self._tags).fields
        nearest = self._listen() if name == "listen" else self._nearest_field(name, possible)
        values = {"seen": name, "allowed": ", ".join(possible)}
        place = self._tree.names[self._path]
        if nearest is None:
            self._tree.mistake("UnknownField", place, self._path, **values)
        else:
            self._tree.mistake("UnknownField.Nearest", place, self._path, **values, nearest=nearest)

    def _nearest_field(self, name: str, possible: tuple[str, ...]) -> str | None:
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower())
        plain = OTHER_NAMES.get(plain, plain)
        if plain in possible:
            return plain
        paths = known_fields(self._kind) | {here: here for here in possible}
        close = difflib.get_close_matches(plain, paths, n=1, cutoff=0.6)
        return paths[close[0]] if close else None

    def _listen(self) -> str:
        address, _, port = (self._place.text or "").rpartition(":")
        address = address.strip("[]")
        try:
            ipaddress.ip_address(address)
        except ValueError:
            address = "0.0.0.0"
        shown = f'"{address}"' if ":" in address else address
        return f"gateway: {{address: {shown}, port: {port if re.fullmatch('[0-9]{1,5}', port) else 8443}}}"

    def _missing_field(self) -> None:
        variant = "MissingField" if self._type == "missing" else "MissingField.Pair"
        self._tree.mistake(variant, self._place, self._asked)

    def _validator(self) -> None:
        values = {name: str(value) for name, value in self._context.items() if name != "at"}
        if self._type != "PasswordInUrl":
            values["seen"] = self._place.seen
        if self._type == "NotAnAddress":
            host = re.sub(r":[0-9]+$", "", self._place.text or "").strip("[]")
            known = {"": "0.0.0.0", "*": "0.0.0.0"}.get(host, host)
            values["nearest"] = known if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", known) else "127.0.0.1"
        self._mistake(self._type, **values)

    def _choice(self, choices: tuple[str, ...] = ()) -> None:
        choices = choices or self._wanted.choices
        plain = (self._place.text or "").lower().replace("-", "_")
        close = difflib.get_close_matches(plain, choices, n=1, cutoff=0.6)
        values = {"seen": self._place.seen, "allowed": ", ".join(choices)}
        if close:
            self._mistake("NotAllowed.Nearest", **values, nearest=close[0])
        else:
            self._mistake("NotAllowed", **values)

    def _length(self) -> None:
        low, high = self._wanted.lengths
        allowed = f"{low}…{'' if high is None else high}"
        self._mistake("WrongLength", seen=str(len(self._place.text or "")), allowed=allowed)

    def _entries(self) -> None:
        if self._type == "too_short":
            self._mistake("TooFew")
        else:
            seen = str(self._context.get("actual_length"))
            self._mistake("TooMany", seen=seen, allowed=str(self._wanted.most_entries))

    def _name(self) -> None:
        kind = self._wanted.name_of
        if kind is None:
            self._mistake("Refused", seen=self._place.seen, problem=str(self._context.get("pattern")))
        elif kind == "Service":
            self._mistake("BadName.Service", seen=self._place.seen, nearest=service_name(self._place.text or ""))
        else:
            self._mistake(f"BadName.{kind}", seen=self._place.seen)

    def _wrong_type(self) -> None:
        seen, text = self._place.seen, self._place.text
        kinds = self._wanted.kinds
        if not self._path:
            self._mistake("WrongType.Root", seen=seen)
        elif "integer" in kinds and self._place.quoted and text and re.fullmatch("[0-9]{1,9}", text, re.ASCII):
            self._mistake("WrongType.Unquote", seen=seen, nearest=str(int(text)), allowed=self._wanted.range)
        elif kinds >= {"integer", "object"}:
            allowed = f"{self._wanted.range} | {{{', '.join(self._wanted.fields)}}}"
            self._mistake("WrongType.IntegerOrSection", seen=seen, allowed=allowed)
        elif "integer" in kinds:
            self._mistake("WrongType.Integer", seen=seen, allowed=self._wanted.range)
        elif "number" in kinds:
            self._mistake("WrongType.Number", seen=seen, allowed=self._wanted.range)
        elif "boolean" in kinds:
            self._mistake("WrongType.YesOrNo", seen=seen)
        elif "array" in kinds:
            self._mistake("WrongType.List", seen=seen)
        elif kinds >= {"string", "object"} and text:
            self._mistake("WrongType.Quote", seen=seen, nearest=json.dumps(text[:60], ensure_ascii=False))
        elif "object" in kinds:
            self._mistake("WrongType.Section", seen=seen, allowed=", ".join(self._wanted.fields))
        elif text is not None and text:
            self._mistake("WrongType.Quote", seen=seen, nearest=json.dumps(text[:60], ensure_ascii=False))
        else:
            self._mistake("WrongType.Text", seen=seen)


def _without_tags(tree: Tree, kind: type[Part], found: Path) -> tuple[Path, Mapping[Path, str]]:
    """Where the error is in the file: pydantic also names the member of a union, which the user never wrote.

    The second: by place, which member that was.
    """
    path: Path = ()
    tags: dict[Path, str] = {}
    for step in found:
        inside = (*path, step)
        fields = wanted(kind, path, tags).fields
        if isinstance(step, int) or inside in tree.names or step in fields or not fields:
            path = inside
        else:
            tags[path] = step
    return path, tags


def _steps(dotted: str) -> Path:
    """`1.name` → (1, "name")."""
    return tuple(int(step) if step.isdigit() else step for step in dotted.split(".") if step)

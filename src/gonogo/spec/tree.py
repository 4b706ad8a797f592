"""YAML text → plain data in which every value knows its line and column. Bounded, and stricter than YAML.

Not here: what the values mean (`load.py`). Refused: aliases that multiply, depth, tags, several documents, keys that
are not text or come twice. Dates, octal and base-60 numbers stay text: nobody who writes `8:30` means 510.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

import yaml

from gonogo.spec.mistakes import Mistake, SpecMistakes

Data = Union[None, bool, int, float, str, list["Data"], dict[str, "Data"]]
Path = tuple[Union[str, int], ...]

MOST_BYTES = 1 << 20
MOST_DEPTH = 16
MOST_VALUES = 2_000
MOST_SHOWN = 60
MOST_DIGITS = 40
CORE_TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = frozenset(
    CORE_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)", re.ASCII)
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.ASCII | re.IGNORECASE)
ESCAPE = re.compile(r"\\U([0-9A-Fa-f]{8})")
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands (from 1) and how it reads there, shortened; `text` is a scalar's own text, unquoted."""

    line: int
    column: int
    seen: str
    text: str | None = None
    quoted: bool = False


@dataclass(slots=True, kw_only=True)
class Tree:
    """The data of one file, the places of its values and of its field names, and what was already wrong with it.

    Values at `spoiled` paths were replaced while reading: the model must not judge them.
    """

    filename: str
    data: Data = None
    values: dict[Path, Place] = field(default_factory=dict)
    names: dict[Path, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    spoiled: set[Path] = field(default_factory=set)

    def mistake(self, variant: str, place: Place, path: Path = (), **values: str) -> None:
        """Note one mistake at `place`."""
        self.mistakes.append(
            Mistake(
                filename=self.filename,
                line=place.line,
                column=place.column,
                variant=variant,
                field=dotted(path),
                values=values,
            )
        )


def dotted(path: Path) -> str:
    """`("probes", 0, "name")` → `probes[0].name`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_shorten(step)}" for step in path)
    return text.removeprefix(".")


def decode(content: bytes, filename: str) -> str:
    """The bytes of a file as text (UTF-8, a byte order mark is left out).

    Raises SpecMistakes when it is too large or not UTF-8.
    """
    _refuse_size(len(content), filename)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        byte = f"0x{content[error.start]:02x}"
        raise SpecMistakes([_at(filename, before, len(before), "NotText", seen=byte)]) from None


def read_tree(text: str, filename: str) -> Tree:
    """The tree of one YAML document. Raises SpecMistakes when there is none; lesser ones are in `Tree.mistakes`."""
    _refuse_size(len(text.encode("utf-8", "surrogatepass")), filename)
    hidden = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if hidden is not None:
        seen = f"U+{ord(hidden.group()):04X}"
        raise SpecMistakes([_at(filename, text, hidden.start(), "ControlCharacter", seen=seen)])
    try:
        _refuse_shape(text, filename)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise SpecMistakes([_not_yaml(error, text, filename)]) from None
    except (ValueError, OverflowError):  # PyYAML asks `chr` for whatever an escape names
        escape = next((each for each in ESCAPE.finditer(text) if int(each.group(1), 16) > sys.maxunicode), None)
        seen, index = (escape.group(), escape.start()) if escape else ("an escape that names no character", 0)
        raise SpecMistakes([_at(filename, text, index, "NotYaml", seen=seen)]) from None
    except yaml.YAMLError as error:
        raise SpecMistakes([_at(filename, text, 0, "NotYaml", seen=_shorten(str(error), 200))]) from None
    tree = Tree(filename=filename)
    if root is None:
        raise SpecMistakes([Mistake(filename=filename, line=1, column=1, variant="Empty")])
    tree.data = _Walk(tree).value(root, ())
    return tree


def _refuse_size(size: int, filename: str) -> None:
    if size > MOST_BYTES:
        values = {"seen": str(size), "allowed": str(MOST_BYTES)}
        raise SpecMistakes([Mistake(filename=filename, line=1, column=1, variant="TooLarge", values=values)])


def _refuse_shape(text: str, filename: str) -> None:
    """Look at the events first: composing is recursive, so depth and number must be known before."""
    depth, values, documents = 0, 0, 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent, yaml.AliasEvent)):
            values += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > MOST_DEPTH:
            raise SpecMistakes([_marked(filename, event.start_mark, "TooDeep", allowed=str(MOST_DEPTH))])
        if values > MOST_VALUES:
            raise SpecMistakes([_marked(filename, event.start_mark, "TooManyValues", allowed=str(MOST_VALUES))])
        if documents > 1:
            raise SpecMistakes([_marked(filename, event.start_mark, "ManyDocuments")])


def _not_yaml(error: yaml.MarkedYAMLError, text: str, filename: str) -> Mistake:
    said = _shorten(", ".join(part for part in (error.context, error.problem) if part), 200)
    mark = error.problem_mark or error.context_mark
    if mark is None:  # PyYAML's types allow it, its parser never does it
        return _at(filename, text, 0, "NotYaml", seen=said)
    if text[mark.index : mark.index + 1] == "\t":
        return _marked(filename, mark, "Tab")
    return _marked(filename, mark, "NotYaml", seen=said)


class _Walk:
    """One walk over the composed nodes. An alias is followed each time it stands there, so this is bounded again."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._visits = 0
        self._characters = 0

    def value(self, node: yaml.Node, path: Path) -> Data:
        self._visits += 1
        self._characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if len(path) > MOST_DEPTH or self._visits > 2 * MOST_VALUES or self._characters > MOST_BYTES:
            # the file itself was in bounds, so aliases did it; one may even hold itself
            raise SpecMistakes([*self._tree.mistakes, _marked(self._tree.filename, node.start_mark, "AliasBomb")])
        self._tree.values[path] = _place(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, CORE_TAG + "seq", path)
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        if node.tag not in PLAIN_TAGS:
            self._check_tag(node, "", path)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> Data:
        self._check_tag(node, CORE_TAG + "map", path)
        data: dict[str, Data] = {}
        for name, child in self._fields(node, path):
            value = self.value(child, (*path, name))
            if value is not None:  # a field with nothing after the colon is the same as one left out
                data[name] = value
        return data

    def _fields(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, yaml.Node]]:
        first: dict[str, Place] = {}
        for key, child in node.value:
            place = _place(key)
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (CORE_TAG + "str", CORE_TAG + "merge"):
                self._tree.mistake("KeyNotText", place, path, seen=place.seen)
                continue
            name = HIDDEN.sub("�", key.value)
            inside: Path = (*path, name)
            if name in first:
                self._tree.mistake("DuplicateField", place, inside, seen=_shorten(name), first=str(first[name].line))
                continue
            first[name] = place
            self._tree.names[inside] = place
            yield name, child

    def _scalar(self, node: yaml.Node, path: Path) -> Data:
        text = str(node.value)
        kind = node.tag.removeprefix(CORE_TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("yes", "true", "on")
        if kind == "int" and INTEGER.fullmatch(text):
            digits = text.replace("_", "")
            # Python refuses to read thousands of digits; any limit of ours is far below
            return int(digits) if len(digits) <= MOST_DIGITS else int(digits[:MOST_DIGITS])
        if kind == "float" and NUMBER.fullmatch(text):
            return float(text)
        hidden = HIDDEN.search(text)
        if hidden is not None:  # written as an escape, such as "\0"
            self._tree.mistake("ControlCharacter", _place(node), path, seen=f"U+{ord(hidden.group()):04X}")
            self._tree.spoiled.add(path)
        return HIDDEN.sub("�", text)

    def _check_tag(self, node: yaml.Node, wanted: str, path: Path) -> None:
        if node.tag != wanted:
            shown = _shorten(node.tag.replace(CORE_TAG, "!!"))
            self._tree.mistake("TagNotAllowed", _place(node), path, seen=shown)
            self._tree.spoiled.add(path)


def _place(node: yaml.Node) -> Place:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if isinstance(node, yaml.MappingNode):
        return Place(line=line, column=column, seen="{…}")
    if isinstance(node, yaml.SequenceNode):
        return Place(line=line, column=column, seen="[…]")
    quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
    text = HIDDEN.sub("�", str(node.value))
    shown = _shorten(text.replace("\n", "\\n"))
    return Place(line=line, column=column, seen=f'"{shown}"' if quoted else shown, text=text, quoted=quoted)


def _shorten(text: str, most: int = MOST_SHOWN) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _marked(filename: str, mark: Any, variant: str, **values: str) -> Mistake:
    return Mistake(filename=filename, line=mark.line + 1, column=mark.column + 1, variant=variant, values=values)


def _at(filename: str, text: str, index: int, variant: str, **values: str) -> Mistake:
    line_start = text.rfind("\n", 0, index) + 1
    line = text.count("\n", 0, index) + 1
    return Mistake(filename=filename, line=line, column=index - line_start + 1, variant=variant, values=values)

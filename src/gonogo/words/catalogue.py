"""The catalogue: `*.yaml` beside this file, read once. An entry is a message (`en: "…"`) or a reason (`en: {seen: …}`).

Not here: which reasons exist. That is `gonogo.checks.catalogue`; a test holds the two against each other.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Iterable, Mapping, Union, cast

import yaml

from gonogo.words.fill import fill, required_placeholders
from gonogo.words.language import Language

FOLDER = Path(__file__).parent
_GENERAL = "messages"
_TERM = re.compile(r"[a-z_]+")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Text:
    """The words of one finding: what was seen, with its numbers, and what to do (None: nothing to do)."""

    seen: str
    remedy: Union[str, None]


@dataclass(frozen=True, slots=True)
class Page:
    """The page of one reason. `see` is one or more command lines; `{}` in them is not filled in."""

    asks: str
    why: str
    see: str
    mend: str


class UnknownReason(LookupError):
    """No words for this reason; `nearest` names the ones that look like it."""

    def __init__(self, reason: str, nearest: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.reason, self.nearest = reason, nearest


def message(name: str, lang: Language, /, **values: object) -> str:
    """The sentence `name` in `lang`. A name that does not exist comes back as itself, with its values."""
    entry = _message(name)
    if entry is None:
        return " ".join([name, *(f"{key}={value}" for key, value in values.items())])
    return fill(_spoken(entry, lang), _translated(values, lang))


def has_message(name: str) -> bool:
    """Whether the catalogue holds a message of this name."""
    return _message(name) is not None


def finding_text(reason: str, values: Mapping[str, object], lang: Language) -> Text:
    """The words of a finding. A reason without words shows its code and its values: better plain than nothing."""
    entry = _reasons().get(reason)
    if entry is None:
        return Text(message("finding.wordless", lang, reason=reason, values=_listed(values)), None)
    words, known = _spoken(entry, lang), _translated(values, lang)
    remedy = words.get("remedy")
    return Text(fill(words["seen"], known).strip(), fill(remedy, known).strip() if remedy else None)


def page(reason: str, lang: Language) -> Page:
    """The page of a reason, in its four parts. Raises `UnknownReason`."""
    entry = _reasons().get(reason)
    if entry is None:
        raise UnknownReason(reason, nearest(reason, reasons()))
    told = _spoken(entry, lang)["explain"]
    if isinstance(told, str):
        return Page(asks=told.strip(), why="", see="", mend="")
    return Page(**{part: str(told[part]).strip() for part in ("asks", "why", "see", "mend")})


def explain(reason: str, lang: Language) -> str:
    """The page of a reason as plain text: a heading line before each part. Raises `UnknownReason`."""
    parts = page(reason, lang)
    shown = [
        f"{message('explain.' + name, lang)}\n{text}"
        for name in ("asks", "why", "see", "mend")
        if (text := getattr(parts, name))
    ]
    return "\n\n".join([reason, *shown])


def reasons(file: Union[str, None] = None) -> tuple[str, ...]:
    """Every reason that has words, sorted; with `file` ("hardware") only those of that file."""
    return tuple(sorted(_reasons() if file is None else _split(file)[1]))


def nearest(name: str, choices: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The choices that look most like `name`, upper and lower case alike, best first."""
    by_lower = {choice.lower(): choice for choice in choices}
    return tuple(by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.5))


def entries(file: str) -> Mapping[str, Mapping[str, Any]]:
    """One file of the catalogue as it stands (for tests): name → language → words."""
    return _read(file)


@cache
def files() -> tuple[str, ...]:
    """The names of the catalogue's files, without their ending."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def _message(name: str) -> Union[Mapping[str, Any], None]:
    """`event.X` stands in `event.yaml` where there is such a file, everything else in `messages.yaml` or anywhere."""
    own = name.partition(".")[0]
    for file in dict.fromkeys((own, _GENERAL, *files())):
        if file in files() and (found := _split(file)[0].get(name)) is not None:
            return cast(Mapping[str, Any], found)
    return None


@cache
def _reasons() -> Mapping[str, Mapping[str, Any]]:
    return {reason: words for file in files() for reason, words in _split(file)[1].items()}


@cache
def _split(file: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(messages, reasons) of one file: a message's English is a text, a reason's is a mapping."""
    read = _read(file)
    told = {name: words for name, words in read.items() if isinstance(words.get("en"), str)}
    return told, {name: words for name, words in read.items() if isinstance(words.get("en"), Mapping)}


@cache
def _read(file: str) -> Mapping[str, Mapping[str, Any]]:
    with open(FOLDER / f"{file}.yaml", encoding="utf-8") as opened:
        read = yaml.load(opened, Loader=_Loader)  # noqa: S506 (CSafeLoader or SafeLoader)
    return {name: words for name, words in (read or {}).items() if isinstance(words, Mapping)}


def _spoken(entry: Mapping[str, Any], lang: Language) -> Any:
    return entry.get(lang, entry["en"])


def _translated(values: Mapping[str, object], lang: Language) -> Mapping[str, object]:
    """`why` may be a code of ours, a reason that has words, or the name of the check whose finding says more; `terms`
    and `doors` hold names of terms; `oddity` is a family's, in English."""
    told = dict(values)
    why, terms, oddity = values.get("why"), values.get("terms"), values.get("oddity")
    if isinstance(oddity, str) and has_message(f"oddity.{oddity}"):
        told["oddity"] = message(f"oddity.{oddity}", lang)
    if isinstance(why, str) and has_message(f"why.{why}"):
        told["why"] = message(f"why.{why}", lang)
    elif isinstance(why, str) and has_message(f"check.{why}"):
        told["why"] = message("why.check", lang, title=message(f"check.{why}", lang))
    elif isinstance(why, str) and why in _reasons():
        told["why"] = _reason_told(why, lang)
    for name, listed in (("terms", terms), ("doors", values.get("doors"))):
        if isinstance(listed, str):
            told[name] = _TERM.sub(lambda found: _term(found.group(), lang), listed)
    return told


def _reason_told(reason: str, lang: Language) -> str:
    """A reason's words with its code, which `gonogo explain` knows; words that need numbers are left out."""
    seen = str(_spoken(_reasons()[reason], lang)["seen"])
    return reason if required_placeholders(seen) else message("why.reason", lang, seen=fill(seen, {}), code=reason)


def _term(name: str, lang: Language) -> str:
    return message(f"term.{name}", lang) if has_message(f"term.{name}") else name


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())

"""How one value of a field is judged: a kind and its bounds, each a small function. Pure.

A judge gets the value, the field's path and the rules of the service, and raises `Mistake`. Not here: which field has
which kind (`fields`).
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Sequence

from gonogo.gateway.policy.body import kind
from gonogo.gateway.policy.deny import Mistake, mistaken, named, nearest, plain
from gonogo.gateway.policy.rules import ServiceRules

Judge = Callable[[Any, str, ServiceRules], None]


def refuse(path: str, message: str, code: str = "invalid_value") -> Mistake:
    """The exception for a field that is wrong; `message` goes on after its name."""
    return Mistake(mistaken(code, f"{path} {message}", path))


def wrong_type(path: str, value: Any, wanted: str) -> Mistake:
    return refuse(path, f"must be {wanted}, and is {kind(value)}.", "invalid_type")


def whole(low: int, high: int) -> Judge:
    """A whole number from `low` to `high`, both included."""

    def judge(value: Any, path: str, _rules: ServiceRules) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(path, value, f"a whole number from {low} to {high}")
        if not low <= value <= high:
            raise refuse(path, f"is {_short(value)}, and must be from {low} to {high}.")

    return judge


def number(low: float, high: float, *, above: bool = False) -> Judge:
    """A number from `low` to `high`; `above`: more than `low`."""
    least = "more than" if above else "from"

    def judge(value: Any, path: str, _rules: ServiceRules) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(path, value, f"a number {least} {low:g} to {high:g}")
        if not low <= value <= high or (above and value == low):
            raise refuse(path, f"is {_short(value)}, and must be {least} {low:g} to {high:g}.")

    return judge


def boolean(value: Any, path: str, _rules: ServiceRules) -> None:
    if not isinstance(value, bool):
        raise wrong_type(path, value, "true or false")


def only(*allowed: bool) -> Judge:
    """`true` or `false` alone, where the other would ask for what is not there."""

    def judge(value: Any, path: str, rules: ServiceRules) -> None:
        boolean(value, path, rules)
        if value not in allowed:
            raise refuse(path, f"cannot be {str(value).lower()} here.")

    return judge


def text(most: int, least: int = 0) -> Judge:
    """A string of at most so many characters."""

    def judge(value: Any, path: str, _rules: ServiceRules) -> None:
        if not isinstance(value, str):
            raise wrong_type(path, value, "a string")
        if len(value) > most:
            raise refuse(path, f"has {len(value):,} characters, and at most {most:,} are let through.")
        if len(value) < least:
            raise refuse(path, "is empty.")

    return judge


def one_of(*words: str) -> Judge:
    """One of these strings."""

    def judge(value: Any, path: str, _rules: ServiceRules) -> None:
        if not isinstance(value, str):
            raise wrong_type(path, value, f"one of {', '.join(words)}")
        if value not in words:
            raise refuse(path, f"must be one of {', '.join(words)}.")

    return judge


def sequence(of: Judge, most: int, least: int = 0) -> Judge:
    """An array of so many values, each judged by `of`."""

    def judge(value: Any, path: str, rules: ServiceRules) -> None:
        check_length(value, path, most, least)
        for index, one in enumerate(value):
            of(one, f"{path}[{index}]", rules)

    return judge


def check_length(value: Any, path: str, most: int, least: int = 0) -> None:
    """Raises `Mistake` for what is no array, or has another number of values."""
    if not isinstance(value, list):
        raise wrong_type(path, value, "an array")
    if len(value) > most:
        raise refuse(path, f"has {len(value):,} values, and at most {most:,} are let through.")
    if len(value) < least:
        raise refuse(path, "is empty.")


def either(first: type, one: Judge, otherwise: Judge) -> Judge:
    """`one` for a value of that type, `otherwise` for the rest."""

    def judge(value: Any, path: str, rules: ServiceRules) -> None:
        (one if isinstance(value, first) else otherwise)(value, path, rules)

    return judge


def mapping(value: Any, path: str) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise wrong_type(path, value, "an object")
    return value


def entries(of: Judge, most: int) -> Judge:
    """An object with any names and so many values, each judged by `of`."""

    def judge(value: Any, path: str, rules: ServiceRules) -> None:
        found = mapping(value, path)
        if len(found) > most:
            raise refuse(path, f"has {len(found):,} entries, and at most {most:,} are let through.")
        for one in found.values():
            # The name is the client's own: the path ends with the field that holds it.
            of(one, path, rules)

    return judge


def record(needed: Sequence[str] = (), **judges: Judge) -> Judge:
    """An object with these fields and no others; a field that is not needed may be null."""

    def judge(value: Any, path: str, rules: ServiceRules) -> None:
        found = mapping(value, path)
        for name, one in found.items():
            if name not in judges:
                raise unknown(name, path, judges)
            if one is not None or name in needed:
                judges[name](one, f"{path}.{name}", rules)
        require(found, needed, path)

    return judge


def require(found: Collection[str], needed: Sequence[str], path: str) -> None:
    """Raises `Mistake` for the first needed field that is missing."""
    for name in needed:
        if name not in found:
            where = f"{path}.{name}" if path else name
            raise Mistake(mistaken("missing_field", f"{where} is missing.", where))


def unknown(name: str, path: str, known: Collection[str], where: str = "") -> Mistake:
    """The exception for a field that is on no list. `where`: of what the list is."""
    inside = f" in {path}" if path else ""
    message = f"The field {named(name)}{inside} is not let through{where}.{nearest(name, known)}"
    safe = plain(name)
    return Mistake(mistaken("unknown_field", message, f"{path}.{safe}" if path and safe else safe or path or None))


def _short(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if abs(value) < 10**18 else "out of all bounds"

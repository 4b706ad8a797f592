"""Fills values into a template of the catalogue. Pure, and it never raises: a value that is missing shows as `?`.

Beside `str.format` two things: `{replicas:replica|replicas}` gives "1 replica" or "2 replicas", and a part in
`[[double brackets]]` is left out when a value in it is missing, None or empty.
"""

from __future__ import annotations

import re
import string
from typing import Any, Mapping, Sequence, Union

MISSING = "?"
_OPTIONAL = re.compile(r"\[\[(.*?)\]\]")


def fill(template: str, values: Mapping[str, object]) -> str:
    """The template with its values; what is not there shows as `?`, what cannot be formatted shows as it is."""
    return _Filler().vformat(_OPTIONAL.sub(lambda found: _kept(found.group(1), values), template), (), values)


def placeholders(template: str) -> frozenset[str]:
    """The names of the values that a template uses, optional ones included."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(_unbracketed(template)) if name)


def required_placeholders(template: str) -> frozenset[str]:
    """The names that show as `?` when their value is missing."""
    return placeholders(_OPTIONAL.sub("", template))


def _kept(part: str, values: Mapping[str, object]) -> str:
    return part if all(values.get(name) not in (None, "") for name in placeholders(part)) else ""


def _unbracketed(template: str) -> str:
    return _OPTIONAL.sub(lambda found: found.group(1), template)


class _Filler(string.Formatter):
    """`str.format` for flat names only: no attributes, no indexes, no exceptions."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ARG002
        return kwargs.get(field_name), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None:
            return MISSING
        if "|" in format_spec:
            return _counted(value, format_spec)
        try:
            return format(value, format_spec)
        except (TypeError, ValueError):
            return str(value)


def _counted(value: Union[int, float, str], format_spec: str) -> str:
    one, _, many = format_spec.partition("|")
    return f"{value} {one if value == 1 else many}"

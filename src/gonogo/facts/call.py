"""Reads the call that ends an agent's answer, `do(action="Tap", element=[499, 731])`, as the agent does. Pure and safe.

The text comes from a model: it is parsed, never run, and only values that are written out are taken.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from gonogo.facts.chat import call_begins

LONGEST_CALL = 20_000
"""Characters; a whole answer of 3,000 tokens has fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The function's name and its named values."""

    function: str
    values: Mapping[str, Any]


class NotACall(ValueError):
    """The text does not end with exactly one call that can be read. Its message says why, in English."""


def parse_call(text: str, functions: Sequence[str]) -> Call:
    """The call that begins in `text` and must reach to its end, of one of these functions. Raises NotACall.

    A line break inside of a text value is read as one, as Open-AutoGLM reads it (phone_agent/actions/handler.py).
    """
    begins = call_begins(text, functions)
    if begins is None:
        raise NotACall(f"no call of {' or '.join(functions)}")
    written = text[begins:].strip()
    if len(written) > LONGEST_CALL:
        raise NotACall(f"{len(written)} characters after the call began")
    for raw, escaped in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        written = written.replace(raw, escaped)
    try:
        tree = ast.parse(written, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotACall(getattr(error, "msg", None) or str(error) or type(error).__name__) from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.func.id not in functions:
        raise NotACall("more than the call stands there")
    if tree.args or any(value.arg is None for value in tree.keywords):
        raise NotACall("a value without a name")
    return Call(function=tree.func.id, values={str(value.arg): _literal(value) for value in tree.keywords})


def _literal(value: ast.keyword) -> Any:
    try:
        return ast.literal_eval(value.value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise NotACall(f"the value of {value.arg} is not written out") from None

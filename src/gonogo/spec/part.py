"""`Part`, the base of every section of every file that gonogo reads, and the types that several of them share."""

from __future__ import annotations

import re
from typing import Annotated, Callable

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


def regular_expression(value: str) -> str:
    """`value`, when Python can read it as a regular expression. Raises the mistake BadPattern."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError("BadPattern", "not a regular expression", {"problem": str(error)}) from None
    return value


def pattern_with(*groups: str) -> Callable[[str], str]:
    """A validator of regular expressions that must have these named groups. It raises the mistake BadPattern."""

    def check(value: str) -> str:
        missing = [name for name in groups if name not in re.compile(regular_expression(value)).groupindex]
        if missing:
            problem = f"it has no group (?P<{missing[0]}>…)"
            raise PydanticCustomError("BadPattern", "a regular expression without a group", {"problem": problem})
        return value

    return check


FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
ProbeName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$", json_schema_extra={"x-name-of": "Probe"})]


class Part(BaseModel):
    """Base of every section of a spec: frozen, and unknown fields are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

"""`Part`, the base of every section of every file that gonogo reads, and the types that several of them share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


def regular_expression(value: str) -> str:
    """`value`, when Python can read it as a regular expression. Raises the mistake BadPattern."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError("BadPattern", "not a regular expression", {"problem": str(error)}) from None
    return value


ProbeName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$", json_schema_extra={"x-name-of": "Probe"})]


class Part(BaseModel):
    """Base of every section of a spec: frozen, and unknown fields are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

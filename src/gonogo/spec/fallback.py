"""The section `fallback`: a hosted API that answers while no replica of the service is well.

It is never there by itself: whoever writes it sends prompts and pictures out of the house. The key stands in a file,
whose path is all that gonogo keeps of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from gonogo.spec.part import FilePath, Part
from gonogo.spec.replicas import Server, server_of

MOST_PARAMETERS = 64
USUAL_BASE = "/v1"
NOT_EMBEDDINGS = "input"
"""Vectors of another model are of no use beside those of the service's own."""
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+){0,16}", re.ASCII)
_EXAMPLE = "https://api.example.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A hosted API: where it listens, and the path (`/v1`, `/api/paas/v4`) that stands before `/chat/completions`."""

    server: Server
    base: str

    @property
    def url(self) -> str:
        """As it stands in a revision."""
        return f"{self.server.url}{self.base}"


def api_of(url: str) -> Api:
    """The API of a base URL, as its makers give it for OpenAI's client; without a path: `/v1`.

    Raises ValueError: no such URL, or none with https.
    """
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    base = (slash + path).rstrip("/")
    if scheme.lower() != "https" or _PATH.fullmatch(base) is None or ".." in base:
        raise ValueError("not the base URL of a hosted API")
    return Api(server=server_of(f"https{separator}{authority}"), base=base or USUAL_BASE)


def _base_url(value: str) -> str:
    try:
        return api_of(value).url
    except ValueError:
        raise PydanticCustomError("NotAnApi", "not the base URL of an API", {"nearest": _nearest(value)}) from None


def _nearest(value: str) -> str:
    """A right URL that may have been meant."""
    host, slash, path = value.rpartition("://")[2].partition("?")[0].rpartition("@")[2].partition("/")
    try:
        return api_of(f"https://{host}{slash}{path}").url
    except ValueError:
        return _EXAMPLE


def _enough(names: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise PydanticCustomError("DuplicateParameter", "one parameter twice", {"at": str(index)})
        if name == NOT_EMBEDDINGS:
            raise PydanticCustomError("NotForFallback", "embeddings of another model", {"at": str(index)})
    wanted = [name for name in ("model", "messages") if name not in names]
    if "model" in wanted or (wanted and "prompt" not in names):
        raise PydanticCustomError("ParametersLack", "no request could be given to it", {"nearest": wanted[0]})
    return names


ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", json_schema_extra={"x-name-of": "Parameter"})]
ApiUrl = Annotated[str, Field(max_length=500), AfterValidator(_base_url)]


class Fallback(Part):
    """A hosted API that gets requests while no replica is well: prompts and pictures leave the house then."""

    url: Annotated[ApiUrl, Field(description="Base URL of an OpenAI-compatible API with https, as its makers give it.")]
    model: Annotated[str, Field(min_length=1, max_length=256, description="What it calls the model.")]
    key_file: Annotated[
        FilePath, Field(description="File with the API's key and nothing else, readable by its owner alone.")
    ]
    parameters: Annotated[
        tuple[ParameterName, ...],
        Field(
            min_length=1,
            max_length=MOST_PARAMETERS,
            description="Fields of a request that may go there; one with any other is refused with 503 and its name.",
        ),
        AfterValidator(_enough),
    ]
    ca_file: Annotated[
        FilePath | None,
        Field(description="CA (PEM) that its certificate is held against; absent: the system's."),
    ] = None

    @property
    def api(self) -> Api:
        """Where it is."""
        return api_of(self.url)

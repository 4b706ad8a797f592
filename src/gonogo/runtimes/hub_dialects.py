"""How each kind of hub is asked: Hugging Face's interface, which mirrors and private hubs speak too, and ModelScope's.

An id means what it means on that hub: `zai-org/GLM-4.5` here is `ZhipuAI/GLM-4.5` there, and nothing guesses one from
the other. ModelScope is asked without a token.
"""

from __future__ import annotations

import os
from typing import Mapping, Protocol, Union
from urllib.parse import quote, urlencode, urlsplit

import gonogo
from gonogo.facts.parse_hub import Listing, parse_hugging_face, parse_model_scope
from gonogo.runtimes.checkpoint_reading import RepositoryError

DEFAULT_ENDPOINT = "https://huggingface.co"
MODEL_SCOPE_HOSTS = ("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai")
MODEL_SCOPE_PREFIX = "modelscope+"
_AGENT = f"gonogo/{gonogo.__version__}"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Dialect(Protocol):
    """One way of asking. `endpoint` is the hub's address without a slash at its end."""

    endpoint: str
    default_revision: str

    def headers(self) -> Mapping[str, str]:
        """What each request carries; a token only where it belongs. May read the library's token store."""

    def listing_url(self, model: str, revision: str) -> str: ...

    def listing(self, content: bytes) -> Listing:
        """Raises HubAnswerError."""

    def file_url(self, model: str, listing: Listing, name: str) -> str: ...


def dialect_of(endpoint: Union[str, None]) -> Dialect:
    """The dialect of an address; None: `HF_ENDPOINT`, else huggingface.co. `modelscope+URL` names the other dialect.

    Raises RepositoryError where it is no http or https address, or holds a password.
    """
    asked = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).strip().rstrip("/")
    address = asked.removeprefix(MODEL_SCOPE_PREFIX)
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or not address.isprintable():
        raise RepositoryError("hub_unreachable", f"{address[:80]!r} is not an http or https address")
    if parts.username is not None or parts.query or parts.fragment:
        raise RepositoryError("hub_unreachable", "a hub's address holds no user, password or query")
    if asked != address or host in MODEL_SCOPE_HOSTS:
        return ModelScope(address)
    return HuggingFace(address)


class HuggingFace:
    default_revision = "main"

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def headers(self) -> Mapping[str, str]:
        """A token goes over https, or to this machine. `HF_TOKEN` goes to the hub that was named; one that the library
        stored at a log-in goes only where the library itself would send it."""
        from huggingface_hub import constants, get_token
        from huggingface_hub.errors import OIDCError

        parts = urlsplit(self.endpoint)
        private = parts.scheme == "https" or parts.hostname in _LOOPBACK
        belongs = bool(os.environ.get("HF_TOKEN")) or self.endpoint == constants.ENDPOINT
        try:
            wanted = private and belongs and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
            token = get_token() if wanted else None
        except OIDCError:
            raise RepositoryError("unauthorized", "no token could be had (HF_OIDC_RESOURCE is set)") from None
        return {"user-agent": _AGENT} if token is None else {"user-agent": _AGENT, "authorization": f"Bearer {token}"}

    def listing_url(self, model: str, revision: str) -> str:
        return f"{self.endpoint}/api/models/{model}/revision/{quote(revision, safe='')}?blobs=true"

    def listing(self, content: bytes) -> Listing:
        return parse_hugging_face(content)

    def file_url(self, model: str, listing: Listing, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(model, name, revision=listing.commit, endpoint=self.endpoint)


class ModelScope:
    default_revision = "master"

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def headers(self) -> Mapping[str, str]:
        return {"user-agent": _AGENT}

    def listing_url(self, model: str, revision: str) -> str:
        asked = urlencode({"Revision": revision, "Recursive": "true"})
        return f"{self.endpoint}/api/v1/models/{quote(model)}/repo/files?{asked}"

    def listing(self, content: bytes) -> Listing:
        return parse_model_scope(content)

    def file_url(self, model: str, listing: Listing, name: str) -> str:
        asked = urlencode({"Revision": listing.revisions.get(name, self.default_revision), "FilePath": name})
        return f"{self.endpoint}/api/v1/models/{quote(model)}/repo?{asked}"

"""What an external server said when it was asked directly, before any request of a client is sent to it."""

from __future__ import annotations

import json
from dataclasses import dataclass

ServerKey = tuple[str, str | None]
"""(base URL, CA file that its certificate is held against; None: the system's CAs)."""

MODEL_LIST = "/v1/models"
HEALTH = "/health"
NO_SUCH_PATH = (404, 405, 501)
"""How a server answers `/health` that has none."""
MOST_NAMES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """`models`: the names that it lists; None: it gave no list, `trouble` says why (a code that has words) and `detail`
    what was seen. `health_status`: what it answered to `/health`; None: it was not asked, or did not answer.
    """

    url: str
    models: tuple[str, ...] | None = None
    trouble: str | None = None
    detail: str | None = None
    health_status: int | None = None

    @property
    def has_no_health(self) -> bool:
        """Whether it answers, and has no `/health`."""
        return self.health_status in NO_SUCH_PATH


def read_model_list(content: bytes) -> tuple[str, ...]:
    """The names in an answer to `/v1/models`. Raises ValueError: it is no such list."""
    try:
        listed = json.loads(content)["data"]
        return tuple(str(one["id"]) for one in listed[:MOST_NAMES])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no list of models: {type(error).__name__}") from None

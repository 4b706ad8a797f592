"""`Finding` and `Check`: the product. A check asks; a finding answers with a reason, numbers and a remedy.

The words of a finding are not here: `gonogo.words` holds, for each reason code, what was seen and what to do,
in English and Chinese, with `values` filled in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Callable, Iterable, Mapping, Union

from gonogo.facts.world import World
from gonogo.spec import Revision

Value = Union[str, int, float, bool, None]


class Verdict(str, Enum):
    PASS = "pass"  # noqa: S105 (a verdict, no password)
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not_applicable"


class Condition(str, Enum):
    """The five conditions, in the order of the checklist."""

    HARDWARE = "hardware"
    SOFTWARE = "software"
    MODEL = "model"
    NETWORK = "network"
    SECURITY = "security"


class Stage(str, Enum):
    """When a check is asked: before anything starts, before traffic is given, and while the service lives."""

    PREFLIGHT = "preflight"
    DEPLOY = "deploy"
    LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer. `reason` is a stable CamelCase code; `values` are the numbers that its words need."""

    reason: str
    verdict: Verdict
    subject: str
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question about a revision and the world.

    `ask` yields at least one finding (a `NOT_APPLICABLE` one when it does not apply); every reason it can yield
    stands in `reasons`. A check that `blocks` stops its stage on FAIL and on UNKNOWN; one that does not advises.
    """

    name: str
    condition: Condition
    stages: tuple[Stage, ...]
    blocks: bool
    reasons: tuple[str, ...]
    ask: Callable[[Revision, World], Iterable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finding together with the check that gave it, at one stage of one revision."""

    service: str = ""
    revision: int = 0
    check: str
    condition: Condition
    stage: Stage
    blocks: bool
    finding: Finding

    @property
    def blocking(self) -> bool:
        """Whether this answer stops its stage."""
        return self.blocks and self.finding.verdict in (Verdict.FAIL, Verdict.UNKNOWN)

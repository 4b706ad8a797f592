"""What was asked for: the frozen `Spec` of one service, and its numbered `Revision`.

Not here: reading YAML (`load.py`) and what was seen (`gonogo.facts`).
"""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]


class Part(BaseModel):
    """Base of every section of a spec: frozen, and unknown fields are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Quantization(str, Enum):
    """How the weights are stored. `auto` keeps what the model file holds."""

    AUTO = "auto"
    NONE = "none"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"
    Q4_1 = "q4_1"


class Replicas(Part):
    """How many replicas may run. Scaling between the two bounds comes later: `min` run."""

    min: Annotated[int, Field(ge=1, le=64)]
    max: Annotated[int, Field(ge=1, le=64)]


class Expect(Part):
    """The load that the plan must hold: concurrent requests in all, and tokens of one request (prompt + answer)."""

    concurrent_requests: Annotated[int, Field(ge=1, le=4096)] = 4
    context_tokens: Annotated[int, Field(ge=128, le=1_048_576)] = 2048


class Slo(Part):
    """Service level objectives in milliseconds; absent means none was asked for."""

    ttft_p95_ms: Annotated[int, Field(ge=1)] | None = None
    itl_p95_ms: Annotated[int, Field(ge=1)] | None = None


class Gateway(Part):
    """Where the gateway listens, and the names that go into its certificate beside the address."""

    address: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    hostnames: tuple[HostName, ...] = ()
    certificate_file: str | None = None
    key_file: str | None = None


class Probe(Part):
    """One question that the deployed model must answer through the front door, and what counts as right.

    `expect_pattern` is a regular expression searched in the answer, case-insensitive.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    expect_pattern: Annotated[str, StringConstraints(min_length=1, max_length=400)]
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 32


class Spec(Part):
    """Everything asked of one service. `replicas` None means: two where two fit, one otherwise."""

    service: ServiceName
    model: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    quantization: Quantization = Quantization.AUTO
    replicas: Replicas | None = None
    expect: Expect = Expect()
    slo: Slo = Slo()
    hosts: Annotated[str, StringConstraints(pattern=r"^local$")] = "local"
    gateway: Gateway = Gateway()
    probes: tuple[Probe, ...] = ()

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON: equal specs, equal digests."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


class Revision(Part):
    """One numbered, immutable snapshot of a service's spec. Numbers start at 1 and only grow."""

    number: Annotated[int, Field(ge=1)]
    spec: Spec

    @property
    def service(self) -> str:
        return self.spec.service

    @property
    def name(self) -> str:
        """`service/revision`, the name of the cluster in the gateway."""
        return f"{self.spec.service}/{self.number}"

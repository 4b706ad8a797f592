"""What was seen of the gateway: the process, and what Envoy said of each resource type (ACK, NACK)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStatus:
    """One xDS resource type: the version we hold, the last that Envoy acknowledged, and its words on a refusal.

    Versions are SHA-256 prefixes of the content of that type alone.
    """

    type_url: str
    wanted_version: str
    acked_version: str | None
    nack: str | None = None

    @property
    def acked(self) -> bool:
        return self.nack is None and self.acked_version == self.wanted_version


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFacts:
    """The Envoy process and its configuration state. `resources` None: no Envoy has connected yet.

    `published` is the digest of the last `PublishSnapshot` carried out, None before the first. `hung`: it is alive,
    and neither answers nor works.
    """

    running: bool
    handle: str | None
    resources: tuple[ResourceStatus, ...] | None
    listening: bool | None = None
    published: str | None = None
    hung: bool = False

    @property
    def acked(self) -> bool:
        """Whether Envoy acknowledged everything that was published."""
        return self.resources is not None and all(resource.acked for resource in self.resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """The certificate that the gateway presents. Times are Unix seconds."""

    subject: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    matches_key: bool
    own_ca: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFacts:
    """The state directory: who else may read it, and whether the event chain holds."""

    path: str
    owner_only: bool | None
    exposed_paths: tuple[str, ...] = ()
    writable: bool | None = None
    write_error: str | None = None
    chain_length: int | None = None
    chain_broken_at: int | None = None

"""How control sees external replicas: asked directly before they serve, afterwards as the gateway's health checks say.

They are nobody's process here: nothing starts, watches or ends them.
"""

from __future__ import annotations

import time
from typing import Iterable, Iterator, Mapping, Sequence

import httpx

from gonogo.facts.gateway_hosts import CLUSTERS_PATH, GatewayHost, parse_clusters
from gonogo.facts.replica import Health, ReplicaFacts, ReplicaName
from gonogo.facts.server import ServerFacts, ServerKey
from gonogo.plan.model import DesiredService
from gonogo.plan.place import active
from gonogo.runtimes.look_servers import look_at_servers
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.unix_http import over_async
from gonogo.spec import Spec
from gonogo.store.faults import UnknownRevision
from gonogo.store.store import Store

ANSWER_LIMIT_S = 0.7


def keys_of(specs: Iterable[Spec]) -> tuple[ServerKey, ...]:
    """The servers that these specs name."""
    return tuple(
        (server.url, spec.replicas.ca_file) for spec in specs if spec.replicas is not None for server in spec.external
    )


class ServerSight:
    """What servers answered when they were asked; each is asked once, until `forget`."""

    def __init__(self) -> None:
        self._seen: dict[ServerKey, ServerFacts] = {}

    def look(self, keys: Iterable[ServerKey]) -> Mapping[ServerKey, ServerFacts]:
        """May block for 4 s, all together."""
        wanted, known = tuple(dict.fromkeys(keys)), self._seen
        seen = {**known, **look_at_servers(key for key in wanted if key not in known)}
        self._seen = seen
        return {key: seen[key] for key in wanted}

    def forget(self, keys: Iterable[ServerKey]) -> None:
        """Ask these anew at the next question."""
        gone = frozenset(keys)
        self._seen = {key: facts for key, facts in self._seen.items() if key not in gone}


class AskedSpecs:
    """The specs of revisions by `service/revision`; a revision never changes, so each is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Spec | None] = {}

    def of(self, name: str) -> Spec | None:
        """None: nobody knows this revision (any more)."""
        if name not in self._known:
            service, _, number = name.rpartition("/")
            try:
                self._known[name] = self._store.revision(service, int(number)).spec
            except (UnknownRevision, ValueError):
                return None
        return self._known[name]

    def of_replicas(self, replicas: Iterable[ReplicaFacts]) -> Mapping[str, Spec]:
        """Those of the revisions that these replicas are of."""
        names = {f"{one.name.service}/{one.name.revision}" for one in replicas}
        found = ((name, self.of(name)) for name in sorted(names))
        return {name: spec for name, spec in found if spec is not None}


class ExternalSight:
    """External replicas as facts: of the revisions that are to have some, and of those that the gateway still has.

    Remembers since when each was looked for: whoever is silent at first gets some time.
    """

    def __init__(self, paths: StatePaths, asked: AskedSpecs) -> None:
        self._socket = str(paths.admin_socket)
        self._asked = asked
        self._since: dict[str, float] = {}
        self._may_have_some = True

    async def look(self, services: Iterable[DesiredService]) -> tuple[ReplicaFacts, ...]:
        """Asks Envoy only where there are such replicas, or were at the last look."""
        specs = {one.name: one.spec for service in services for one in active(service) if one.spec.external}
        if not specs and not self._may_have_some:
            return ()
        clusters = await gateway_clusters(self._socket)
        for name in clusters or ():
            spec = self._asked.of(name)
            if spec is not None and spec.external:
                specs.setdefault(name, spec)
        self._may_have_some = bool(specs) or clusters is None
        found = tuple(one for name, spec in sorted(specs.items()) for one in self._of(name, spec, clusters))
        kept = {str(one.name) for one in found}
        self._since = {name: at for name, at in self._since.items() if name in kept}
        return found

    def _of(
        self, revision: str, spec: Spec, clusters: Mapping[str, tuple[GatewayHost, ...]] | None
    ) -> Iterator[ReplicaFacts]:
        now = time.monotonic()
        hosts = None if clusters is None else clusters.get(revision)
        for index, server in enumerate(spec.external):
            name = f"{revision}/{index}"
            mine = None if hosts is None else [one for one in hosts if one.hostname == server.authority]
            yield ReplicaFacts(
                name=ReplicaName.parse(name),
                host=server.host,
                address=server.host,
                port=server.port,
                handle=None,
                health=None if mine is None else _health(mine),
                age_s=now - self._since.setdefault(name, now),
                requests_running=None if mine is None else sum(one.requests_active for one in mine),
                url=server.url,
            )


async def gateway_clusters(socket: str) -> Mapping[str, tuple[GatewayHost, ...]] | None:
    """What Envoy says at its admin socket. None: it does not answer, so that nothing is known."""
    transport = over_async(socket)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_LIMIT_S) as client:
            return parse_clusters((await client.get(f"http://admin{CLUSTERS_PATH}")).text)
    except httpx.HTTPError:
        return None


def _health(hosts: Sequence[GatewayHost]) -> Health | None:
    """Of one server, whose name may stand for several addresses: well where one of them is. None: not checked yet.

    No host at all: its name leads nowhere.
    """
    if any(one.healthy for one in hosts):
        return Health.READY
    return None if any(one.healthy is None for one in hosts) else Health.DEAD

"""Condition 4, the network: the queue's server, where the specs name one of other people's."""

from __future__ import annotations

from typing import Any

from tests.acceptance.deployment import wait_for
from tests.drills.harness import Yard, assert_only, until
from tests.drills.test_drills_external import FAR, asked, deployed
from tests.shell.outside_engine import OutsideEngine
from tests.shell.valkey_parts import Valkey


def elsewhere(server: Valkey) -> dict[str, str]:
    return {"url": f"unix://{server.socket}"}


def test_queue_shared(yard: Yard) -> None:
    """Two services name two servers: without the check the second one is deployed, and nobody listens at its bell."""
    with Valkey() as first, Valkey() as second, OutsideEngine(FAR) as one, OutsideEngine(FAR) as two:
        urls = (one.url, two.url)
        with deployed(yard, asked(*urls, queue=elsewhere(first))) as service:
            wanted = asked(*urls, service="far-too", queue=elsewhere(second))
            found = assert_only(yard.refused(wanted), "queue_shared", "QueueDiffers", "queue")
            assert found["values"]["other"] == FAR
            with yard.faults.broken(without=["queue_shared"]):
                yard.submit(wanted)
                try:
                    assert yard.settled(["far-too"])["far-too"]["phase"] == "proven"
                    with service.client(yard) as client:
                        _left(client)  # a worker begins to listen when there is something to do
                    until(lambda: _heard(first), "the bell hangs at the first one")
                    assert not _heard(second)
                finally:
                    yard.remove("far-too")
    yard.well()


def test_queue_server(yard: Yard) -> None:
    """The server is killed: tasks are taken and wait, and begin when it is back. Interactive requests go on."""
    with (
        Valkey() as server,
        OutsideEngine(FAR) as one,
        OutsideEngine(FAR) as two,
        deployed(yard, asked(one.url, two.url, queue=elsewhere(server))) as service,
        service.client(yard) as client,
    ):
        assert _ended(client, _left(client))
        server.end()

        def told() -> Any:
            live = [one for one in yard.control.check(FAR) if one["stage"] == "live"]
            return live if any(one["reason"] == "QueueServerSilent" for one in live) else None

        found = assert_only(wait_for(told, 30, "it is told"), "queue_server", "QueueServerSilent", "queue")
        assert not found["blocks"]
        waiting = _left(client)
        assert yard.chat(client, model=FAR).status_code == 200
        assert client.get(f"/v1/tasks/{waiting}").json()["state"] == "queued"
        server.start()
        assert _ended(client, waiting)
    yard.well()


def _heard(server: Valkey) -> bool:
    """Whether somebody is connected beside us."""
    return int(server.client().info("clients")["connected_clients"]) > 1


def _left(client: Any) -> str:
    body = {"model": FAR, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    made = client.post("/v1/tasks", json={"body": body})
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def _ended(client: Any, task: str) -> bool:
    def done() -> bool:
        return bool(client.get(f"/v1/tasks/{task}", params={"wait": 2}).json()["state"] == "done")

    return bool(wait_for(done, 60, "the task is done"))

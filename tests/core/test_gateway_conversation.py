"""What is answered to Envoy on one ADS stream: the rules that were learned by stalling a real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from gonogo.gateway.conversation import Conversation
from gonogo.gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, PUSH_ORDER, ROUTES, SECRET, Snapshot
from gonogo.gateway.translate import translate
from tests.core.test_translate import PLAN, cluster

FIRST = translate(PLAN)


class Envoy:
    """The other side: subscribes as Envoy does, and acknowledges what it is sent."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.conversation = Conversation(snapshot)
        self.names: dict[str, list[str]] = {}
        self.last: dict[str, DiscoveryResponse] = {}

    def subscribe(self, type_url: str, *names: str, version: str = "") -> list[DiscoveryResponse]:
        self.names[type_url] = list(names)
        last = self.last.get(type_url)
        return self.hear(
            self.conversation.on_request(
                DiscoveryRequest(
                    type_url=type_url,
                    resource_names=names,
                    version_info=last.version_info if last else version,
                    response_nonce=last.nonce if last else "",
                )
            )
        )

    def hear(self, responses: list[Any]) -> list[DiscoveryResponse]:
        for response in responses:
            self.last[response.type_url] = response
        return responses

    def reply(self, type_url: str, nack: str | None = None) -> list[DiscoveryResponse]:
        request = DiscoveryRequest(
            type_url=type_url, resource_names=self.names[type_url], response_nonce=self.last[type_url].nonce
        )
        if nack is not None:
            request.error_detail.message = nack
        else:
            request.version_info = self.last[type_url].version_info
        return self.hear(self.conversation.on_request(request))

    def push(self, snapshot: Snapshot) -> list[str]:
        return [response.type_url for response in self.hear(self.conversation.on_snapshot(snapshot))]

    def settle(self) -> None:
        """Everything of `PLAN`, acknowledged."""
        self.subscribe(CLUSTER)
        self.subscribe(ENDPOINTS, "a/1", "b/3")
        self.subscribe(LISTENER)
        self.subscribe(ROUTES, "gateway")
        self.subscribe(SECRET, "server")
        for type_url in PUSH_ORDER:
            assert self.reply(type_url) == []


def settled() -> Envoy:
    envoy = Envoy(FIRST)
    envoy.settle()
    return envoy


def test_all_types_are_acknowledged_after_the_first_round() -> None:
    assert all(status.acked for status in settled().conversation.status(FIRST))


def test_an_equal_snapshot_is_not_pushed() -> None:
    assert settled().push(translate(PLAN)) == []


def test_a_changed_cluster_brings_its_endpoints_again_though_they_did_not_change() -> None:
    assert settled().push(translate(replace(PLAN, policy_sockets=("/other.sock",)))) == [CLUSTER, ENDPOINTS]


def test_a_changed_listener_brings_its_routes_again_though_they_did_not_change() -> None:
    assert settled().push(translate(replace(PLAN, access_log_path="/other"))) == [LISTENER, ROUTES]


def test_what_is_referred_to_goes_out_before_what_refers_to_it() -> None:
    everything = replace(
        PLAN, clusters=(cluster("c/1", 1),), certificate_chain_pem="renewed", access_log_path="/other", listeners=()
    )
    everything = replace(everything, listeners=PLAN.listeners)
    assert settled().push(translate(everything)) == [SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTES]


def test_a_new_name_in_a_subscription_is_answered_at_the_same_version() -> None:
    envoy = Envoy(FIRST)
    envoy.subscribe(ENDPOINTS, "a/1")
    envoy.reply(ENDPOINTS)
    (answer,) = envoy.subscribe(ENDPOINTS, "a/1", "b/3")
    assert len(answer.resources) == 2
    assert envoy.subscribe(ENDPOINTS, "a/1") == [], "fewer names need no answer"


def test_a_name_that_comes_back_is_answered_again() -> None:
    envoy = settled()
    assert envoy.subscribe(ROUTES) == []
    assert len(envoy.subscribe(ROUTES, "gateway")) == 1


def test_an_outdated_nonce_changes_nothing() -> None:
    envoy = settled()
    late = DiscoveryRequest(type_url=CLUSTER, response_nonce="long ago", version_info="old")
    late.error_detail.message = "refused long ago"
    assert envoy.conversation.on_request(late) == []
    assert all(status.acked for status in envoy.conversation.status(FIRST))


def test_a_refusal_keeps_envoys_words_and_is_not_sent_again() -> None:
    envoy = settled()
    renewed = translate(replace(PLAN, certificate_chain_pem="bad"))
    assert envoy.push(renewed) == [SECRET]
    assert envoy.reply(SECRET, nack="Failed to load certificate chain") == []
    assert envoy.push(renewed) == [], "no loop"
    (secret,) = [status for status in envoy.conversation.status(renewed) if status.type_url == SECRET]
    assert (secret.nack, secret.acked) == ("Failed to load certificate chain", False)
    assert secret.acked_version == FIRST.versions[SECRET], "Envoy goes on with what it had"


def test_after_a_refusal_the_way_back_and_the_way_on_are_both_sent() -> None:
    envoy = settled()
    envoy.push(translate(replace(PLAN, certificate_chain_pem="bad")))
    envoy.reply(SECRET, nack="no")
    assert envoy.push(FIRST) == [SECRET]
    envoy.reply(SECRET)
    assert all(status.acked for status in envoy.conversation.status(FIRST))


def test_an_envoy_that_knows_everything_already_is_answered_nevertheless() -> None:
    envoy = Envoy(FIRST)
    (answer,) = envoy.subscribe(CLUSTER, version=FIRST.versions[CLUSTER])
    assert answer.version_info == FIRST.versions[CLUSTER]


def test_an_envoy_that_came_before_the_first_snapshot_is_answered_when_there_is_one() -> None:
    envoy = Envoy(None)
    assert envoy.subscribe(CLUSTER) == []
    assert envoy.subscribe(LISTENER) == []
    assert envoy.push(FIRST) == [CLUSTER, LISTENER]


def test_types_of_which_there_is_nothing_count_as_acknowledged() -> None:
    empty = translate(replace(PLAN, listeners=(), clusters=()))
    envoy = Envoy(empty)
    envoy.subscribe(CLUSTER)
    envoy.subscribe(LISTENER)
    assert not all(status.acked for status in envoy.conversation.status(empty))
    envoy.reply(CLUSTER)
    envoy.reply(LISTENER)
    assert all(status.acked for status in envoy.conversation.status(empty))


def test_a_type_that_is_none_of_ours_is_left_unanswered() -> None:
    assert Envoy(FIRST).conversation.on_request(DiscoveryRequest(type_url="type.googleapis.com/foreign")) == []

"""Which drill belongs to which check. `test_drills.py` holds this table against the catalogue of checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """`test` is the drill's function. `companions`: checks that cannot but speak up too, each with the reason why."""

    test: str
    breaks: str
    saves_from: str
    companions: Mapping[str, str] = field(default_factory=dict)


DRILLS: Mapping[str, Drill] = {
    "answers_right": Drill(
        test="test_answers_right",
        breaks="an engine that answers another question than the one asked",
        saves_from="fluent nonsense with status 200",
    ),
    "stream_in_pieces": Drill(
        test="test_stream_in_pieces",
        breaks="an engine that holds its stream back until the last token",
        saves_from="a stream whose first word comes with its last",
    ),
    "max_tokens_honoured": Drill(
        test="test_max_tokens_honoured",
        breaks="an engine that adds 16 to max_tokens",
        saves_from="answers four times as long, and as dear, as was asked",
    ),
    "stop_honoured": Drill(
        test="test_stop_honoured",
        breaks="an engine that drops the field stop",
        saves_from="an answer that runs over the word that was to end it",
    ),
    "no_repetition": Drill(
        test="test_no_repetition",
        breaks="an engine that says every answer twelve times",
        saves_from="an answer that repeats itself, with status 200",
    ),
    "model_list_right": Drill(
        test="test_model_list_right",
        breaks="an engine that lists its file's name instead of the service's",
        saves_from="a client that takes the first listed model and gets one that nobody has heard of",
    ),
    "keyless_refused": Drill(
        test="test_keyless_refused",
        breaks="policy servers that let a request without a key in",
        saves_from="anybody is served, with status 200",
    ),
    "wrong_key_refused": Drill(
        test="test_wrong_key_refused",
        breaks="policy servers that never compare a key's secret",
        saves_from="whoever has seen a key's public id is served",
    ),
    "revoked_key_refused": Drill(
        test="test_revoked_key_refused",
        breaks="policy servers that do not look at revocations",
        saves_from="a stolen key works for ever",
    ),
    "old_tls_refused": Drill(
        test="test_old_tls_refused",
        breaks="a listener that takes TLS 1.2 too",
        saves_from="a client, or who stands between, talks the gateway down to TLS 1.2",
    ),
    "events_intact": Drill(
        test="test_events_intact",
        breaks="one row of the event log changed in the database",
        saves_from="a log that names somebody else, and reads like the truth",
    ),
    "clock_steady": Drill(
        test="test_clock_steady",
        breaks="the clock of all processes set back by five minutes",
        saves_from="a key that had expired works again",
    ),
    "engine_on_loopback": Drill(
        test="test_engine_on_loopback",
        breaks="an engine that listens on 0.0.0.0 too",
        saves_from="anybody on the network uses the model without a key",
    ),
    "state_private": Drill(
        test="test_state_private",
        breaks="a state directory with the modes 755 and 644",
        saves_from="another user reads the authority's private key",
    ),
    "large_body_accepted": Drill(
        test="test_large_body_accepted",
        breaks="a gateway that takes bodies of 1 MiB",
        saves_from="every step of a phone agent fails with 413, as its screenshot has 1.3 MB",
    ),
    "unknown_path_refused": Drill(
        test="test_unknown_path_refused",
        breaks="a route for every path, without policy",
        saves_from="the engine's metrics, slots and settings are open to anybody",
    ),
    "gateway_accepted": Drill(
        test="test_gateway_accepted",
        breaks="a renewed certificate with another's key, which Envoy refuses",
        saves_from="the old certificate is presented until the day it expires",
    ),
    "replicas_ready": Drill(
        test="test_replicas_ready",
        breaks="an engine that dies at each start, for one of two replicas",
        saves_from="the next death takes the whole service, with 503 for everybody",
    ),
    "policy_servers": Drill(
        test="test_policy_servers",
        breaks="a folder where the socket of one of two policy servers should be",
        saves_from="the next death refuses everybody, with a key or without",
    ),
}

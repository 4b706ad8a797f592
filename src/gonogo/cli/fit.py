"""`gonogo fit MODEL --on HARDWARE`: would it run there, how, for how many, and what must change if not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Mapping, Optional, Sequence

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import BLOCKED, WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.fit_model import Found
    from gonogo.cli.session import Session
    from gonogo.engines.hardware import Hardware
    from gonogo.engines.planners import Planner
    from gonogo.plan.answer import Answer
    from gonogo.plan.choose import Way
    from gonogo.plan.pace import Promise
    from gonogo.plan.prices import CardPrice

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help=told("argument.fit_model"), show_default=False)]
On = Annotated[Optional[str], typer.Option("--on", metavar="COUNTxCARD", help=told("option.on"), show_default=False)]
Requests = Annotated[
    int, typer.Option("--concurrent-requests", "-n", metavar="N", help=told("option.concurrent_requests"))
]
Context = Annotated[
    Optional[str],
    typer.Option("--context-tokens", metavar="TOKENS", help=told("option.context_tokens"), show_default=False),
]
EngineName = Annotated[
    Optional[str], typer.Option("--engine", metavar="NAME", help=told("option.engine"), show_default=False)
]
Version = Annotated[
    Optional[str],
    typer.Option("--engine-version", metavar="X.Y.Z", help=told("option.engine_version"), show_default=False),
]
Form = Annotated[
    Optional[str], typer.Option("--quantization", metavar="NAME", help=told("option.quantization"), show_default=False)
]
Share = Annotated[
    Optional[float], typer.Option("--share", metavar="PART", help=told("option.share"), show_default=False)
]
Tensor = Annotated[Optional[int], typer.Option("--tensor", metavar="N", help=told("option.tensor"), show_default=False)]
CacheType = Annotated[
    Optional[str], typer.Option("--kv-cache", metavar="auto|fp8", help=told("option.kv_cache"), show_default=False)
]
AnswerTokens = Annotated[
    Optional[int], typer.Option("--answer-tokens", metavar="N", help=told("option.answer_tokens"), show_default=False)
]
Wait = Annotated[
    Optional[float], typer.Option("--ttft-ms", metavar="MS", help=told("option.ttft_ms"), show_default=False)
]
Step = Annotated[
    Optional[float], typer.Option("--itl-ms", metavar="MS", help=told("option.itl_ms"), show_default=False)
]
Prices = Annotated[
    Optional[str], typer.Option("--prices", metavar="FILE", help=told("option.prices"), show_default=False)
]
PrintedLog = Annotated[
    Optional[str], typer.Option("--printed", metavar="LOG", help=told("option.printed"), show_default=False)
]
Hub = Annotated[Optional[str], typer.Option("--hub", metavar="URL", help=told("option.hub"), show_default=False)]
Offline = Annotated[bool, typer.Option("--offline", help=told("option.offline"), show_default=False)]
Terms = Annotated[bool, typer.Option("--terms", help=told("option.all_terms"), show_default=False)]
HERE = "local"
CACHE_TYPES = {"auto": None, "fp8": 1.0}
"""Bytes of one cached value; None: as the model's own type."""
TOKENS_PER_K, MOST_TOKENS, MOST_REQUESTS = 1024, 10_485_760, 1_000_000
LONGEST_WAIT_MS = 3_600_000


def command(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    model: ModelName,
    on: On = None,
    concurrent_requests: Requests = 1,
    context_tokens: Context = None,
    engine: EngineName = None,
    engine_version: Version = None,
    quantization: Form = None,
    answer_tokens: AnswerTokens = None,
    ttft_ms: Wait = None,
    itl_ms: Step = None,
    share: Share = None,
    tensor: Tensor = None,
    kv_cache: CacheType = None,
    prices: Prices = None,
    printed: PrintedLog = None,
    terms: Terms = False,
    hub: Hub = None,
    offline: Offline = False,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    from gonogo.cli.fit_model import Where, find_model
    from gonogo.cli.fit_page import print_answer
    from gonogo.cli.session import open_session
    from gonogo.engines.capacity import Ask
    from gonogo.engines.hardware import HardwareError, parse_hardware
    from gonogo.engines.planners import PLANNERS
    from gonogo.plan.answer import answer, as_plain, with_paces
    from gonogo.plan.calibration import calibration
    from gonogo.plan.choose import Demand
    from gonogo.plan.pace import Promise
    from gonogo.runtimes.lessons import lessons

    session = open_session(state_dir, json, lang)
    try:
        hardware = _cards_here() if on in (None, HERE) else parse_hardware(on or "")
    except HardwareError as error:
        raise Refusal(error.reason, WRONG_INPUT, error.values) from None
    _refuse_mistakes(
        ("--answer-tokens", answer_tokens, 1, MOST_TOKENS),
        ("--concurrent-requests", concurrent_requests, 1, MOST_REQUESTS),
        ("--ttft-ms", ttft_ms, 1, LONGEST_WAIT_MS),
        ("--itl-ms", itl_ms, 1, LONGEST_WAIT_MS),
        ("--share", share, 0.05, 0.99),
        ("--tensor", tensor, 1, hardware.count),
    )
    if engine is not None and engine not in PLANNERS:
        raise _option("--engine", engine, " | ".join(PLANNERS))
    if kv_cache not in (None, *CACHE_TYPES):
        raise _option("--kv-cache", str(kv_cache), " | ".join(CACHE_TYPES))
    tokens, priced = _tokens(context_tokens), _prices(session, prices)
    seen = find_model(session, model, Where(hub=hub, offline=offline, engine=engine))
    ways = [replace(way, tensor=tensor) for way in _left(seen, engine, quantization)]
    demand = Demand(concurrent_requests=concurrent_requests, context_tokens=tokens or seen.usual_tokens)
    served = engine or ways[0].engine
    ask = Ask(
        engine=served,
        version=_version(engine_version, PLANNERS[served]),
        share=share,
        kv_bytes=CACHE_TYPES[kv_cache or "auto"],
        lessons=lessons(session.paths.root),
    )
    found = answer(seen.name, ways, hardware, demand, ask)
    promise = Promise(ttft_ms=ttft_ms, itl_ms=itl_ms)
    found = with_paces(found, answer_tokens, calibration(), priced, promise)
    plain = {**as_plain(found), "origin": seen.origin, "narrowed": len(ways) < len(seen.ways)}
    print_answer(session, plain, terms)
    if printed is not None:
        from gonogo.cli.fit_printed import learn

        plain["printed"] = learn(session, found, printed, engine_version is not None)
    refusal = _refused(found, plain, promise)
    if refusal is not None:
        raise refusal
    return Outcome(result=plain)


def _refuse_mistakes(*bounded: tuple[str, float | None, float, float]) -> None:
    """Before a hub is asked. Raises Refusal for an option that is below its least value or above its most."""
    for name, given, least, most in bounded:
        if given is not None and not least <= given <= most:
            raise _option(name, str(given), f"{least} … {most}")


def _cards_here() -> Hardware:
    """The cards of this machine. Raises HardwareError, with the driver's own words where it says why."""
    from gonogo.engines.hardware import HardwareError, hardware_here
    from gonogo.runtimes.look_accelerators import look_at_accelerators

    seen = look_at_accelerators()
    try:
        return hardware_here(seen.accelerators)
    except HardwareError as error:
        words = seen.driver.words if seen.driver is not None else None
        raise HardwareError(error.reason, **{**error.values, **({"words": words} if words else {})}) from None


def _prices(session: Session, file: str | None) -> Mapping[str, CardPrice]:
    """Ours, and the user's before them. Raises Refusal with line and column."""
    from pathlib import Path

    from gonogo.cli.specs import mistaken, text_of
    from gonogo.plan.price_list import texts
    from gonogo.plan.prices import load_prices
    from gonogo.spec.mistakes import SpecMistakes

    if file is not None and not Path(file).is_file():
        raise _option("--prices", file, session.told("fit.no_such_file"))
    given = {} if file is None else {file: text_of(session, Path(file))}
    try:
        return load_prices({**texts(), **given})
    except SpecMistakes as mistakes:
        raise mistaken(session, mistakes, str(file)) from None


def _left(seen: Found, engine: str | None, quantization: str | None) -> Sequence[Way]:
    """The ways that `--engine` and `--quantization` leave. Raises Refusal when none is left."""
    form = None if quantization is None else quantization.casefold()
    left = [way for way in seen.ways if engine in (None, way.engine) and form in (None, way.quantization.casefold())]
    if not left:
        named = {"--engine": engine, "--quantization": quantization}
        asked = " ".join(f"{option} {value}" for option, value in named.items() if value is not None)
        raise _no_way(seen.name, asked, seen.ways)
    return left


def _no_way(model: str, asked: str, ways: Sequence[Way]) -> Refusal:
    known = ", ".join(dict.fromkeys(f"{way.engine}/{way.quantization}" for way in ways))
    return Refusal("NoWayLeft", WRONG_INPUT, {"model": model, "asked": asked, "known": known})


def _refused(found: Answer, plain: dict[str, Any], promise: Promise) -> Refusal | None:
    """Exit code 3 unless it fits and holds what was asked: the whole answer goes with the refusal."""
    from gonogo.engines.capacity import Fit

    values = {"model": found.name, "count": found.hardware.count, "card": found.hardware.card.name}
    if found.fit is Fit.DOES_NOT_FIT:
        return Refusal("FitsNot", BLOCKED, values, plain)
    if found.fit is Fit.UNKNOWN:
        return Refusal("FitUnknown", BLOCKED, {**values, "oddity": plain["oddity"]}, plain)
    best = found.choice.best
    if best is not None and not found.choice.holds_demand:
        asked = found.choice.demand.concurrent_requests
        return Refusal("FitTooFew", BLOCKED, {**values, "requests": best.requests, "asked": asked}, plain)
    kept = found.paces[0].kept if found.paces and found.paces[0] is not None else None
    cards = kept.cards if kept is not None else None
    if promise.any and (cards is None or cards > found.hardware.count):
        return Refusal("FitTooSlow", BLOCKED, {**values, "cards": cards}, plain)
    return None


def _tokens(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,8})([kK]?)", text)
    tokens = int(found.group(1)) * (TOKENS_PER_K if found.group(2) else 1) if found else 0
    if not 1 <= tokens <= MOST_TOKENS:
        raise _option("--context-tokens", text, f"1 … {MOST_TOKENS}, 32k")
    return tokens


def _version(text: str | None, planner: Planner) -> tuple[int, ...] | None:
    """Raises Refusal for what is no version of this engine, or older than anything that was read of it."""
    if text is None:
        return None
    oldest = ".".join(map(str, planner.oldest))
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6}){0,2})(?:\.post(\d{1,3})|rc\d{1,3})?", text)
    version = tuple(int(part) for part in found.group(1).split(".")) if found else ()
    if found is None or len(version) != len(planner.newest) or not planner.oldest <= version <= planner.newest:
        raise _option("--engine-version", text, f"{planner.title} {oldest} … {planner.newest_text}")
    return (*version, int(found.group(2))) if found.group(2) else version


def _option(name: str, given: str, expected: str) -> Refusal:
    values = {"option": name, "words": f"{given}: {expected}", "command": "gonogo fit"}
    return Refusal("OptionMistaken", WRONG_INPUT, values)

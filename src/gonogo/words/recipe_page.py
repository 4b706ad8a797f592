"""A recipe in words: every line of `gonogo docs NAME`, and the page of all recipes as Markdown.

Not here: how lines are wrapped and printed (`gonogo.cli.docs`), and what a recipe holds (`gonogo.spec.recipe`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Iterator, Mapping

from gonogo.spec.recipe import HubSource, Recipe
from gonogo.spec.recipe_parts import ClientHints, EngineNeeds, ImageBudget, Languages, QuantizationOption, When
from gonogo.spec.recipe_probes import (
    Grounding,
    LargestImage,
    NoLeakedStopToken,
    NoRepetition,
    ReasoningLength,
    RecipeProbe,
    ToolCall,
    WarmedCompletion,
    kind_of,
)
from gonogo.words.catalogue import message
from gonogo.words.language import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line before it is wrapped: how far it stands in, and whether it is a heading."""

    text: str
    indent: int = 0
    strong: bool = False


def spoken(text: Languages, lang: Language) -> str:
    """The text in the reader's language."""
    return text.zh if lang == "zh" else text.en


def recipe_lines(recipe: Recipe, lang: Language) -> Iterator[Line]:
    """Everything that a recipe says, in the order in which a reader wants it."""
    yield Line(text=recipe.name, strong=True)
    yield Line(text=spoken(recipe.description, lang), indent=2)
    head = {"license": recipe.license, "engine": recipe.engine}
    numbers = {"context": recipe.context_tokens, "trained": recipe.trained_context_tokens}
    yield Line(text=message("recipe.head", lang, **head, **numbers), indent=2)
    yield from _where(recipe, lang)
    if recipe.engines:
        yield from _heading("recipe.engines", lang)
        for name, needs in recipe.engines.items():
            yield from _engine(name, needs, lang)
    if recipe.quantizations:
        yield from _heading("recipe.quantizations", lang)
        for option in recipe.quantizations:
            yield from _quantization(option, lang)
    if recipe.images is not None:
        yield from _heading("recipe.images", lang)
        yield from _images(recipe.images, lang)
    if recipe.stop_tokens is not None:
        yield from _heading("recipe.stop_tokens", lang)
        both = (*map(str, recipe.stop_tokens.ids), *recipe.stop_tokens.texts)
        yield Line(text=", ".join(both), indent=2)
    yield from _heading("recipe.probes", lang)
    for probe in recipe.probes:
        yield Line(text=f"{probe.name}: {_probe(probe, lang)}", indent=2)
    yield from _heading("recipe.clients", lang)
    yield Line(text=_clients(recipe.clients), indent=2)
    if recipe.clients.programs:
        names = ", ".join(one.value for one in recipe.clients.programs)
        yield Line(text=message("recipe.programs", lang, names=names), indent=2)
    yield Line(text=spoken(recipe.clients.hint, lang), indent=2)
    yield from _heading("recipe.sources", lang)
    for field, source in recipe.sources.items():
        yield Line(text=f"{field}: {source}", indent=2)


def recipes_page(recipes: Mapping[str, Recipe], lang: Language) -> str:
    """The page of all recipes: one row each, the versions that go wrong, and what screens cost. Markdown."""
    rows = [
        f"# {message('recipe.page.title', lang)}",
        "",
        message("recipe.page.made", lang),
        "",
        *_table("recipe.page.columns", (_row(recipe) for recipe in recipes.values()), lang),
        "",
        f"## {message('recipe.page.bad', lang)}",
        "",
        *_table("recipe.page.bad_columns", _bad_rows(recipes, lang), lang),
        "",
        f"## {message('recipe.page.screens', lang)}",
        "",
        message("recipe.page.screens_text", lang),
        "",
        *_table("recipe.page.screen_columns", _screen_rows(recipes["autoglm-phone-9b"]), lang),
    ]
    return "\n".join(rows) + "\n"


def _heading(name: str, lang: Language) -> Iterator[Line]:
    yield Line(text="")
    yield Line(text=message(name, lang), strong=True)


def _where(recipe: Recipe, lang: Language) -> Iterator[Line]:
    source = recipe.source
    if not isinstance(source, HubSource):
        yield Line(text=message("recipe.package", lang, distribution=source.distribution, file=source.file), indent=2)
        return
    ids = {"hugging_face": source.hugging_face, "modelscope": source.modelscope}
    yield Line(text=message("recipe.hub", lang, **ids), indent=2)
    if source.shaped_like is not None:
        yield Line(text=message("recipe.shaped_like", lang, model=source.shaped_like), indent=2)


def _engine(name: str, needs: EngineNeeds, lang: Language) -> Iterator[Line]:
    versions = needs.versions or f"({message('recipe.versions_unknown', lang)})"
    yield Line(text=f"{name} {versions}", indent=2, strong=True)
    yield Line(text=needs.source, indent=4)
    for flag in needs.flags:
        several = f"   ({message('recipe.with_several', lang)})" if flag.when is When.TENSOR_PARALLEL else ""
        words = flag.flag if flag.value is None else f"{flag.flag} {shlex.quote(flag.value)}"
        yield Line(text=words + several, indent=4, strong=True)
        yield Line(text=spoken(flag.why, lang), indent=6)
        yield Line(text=f"[{flag.source}]", indent=6)
    for left in needs.left_out:
        yield Line(text=message("recipe.left_out", lang, flag=left.flag), indent=4, strong=True)
        yield Line(text=spoken(left.why, lang), indent=6)
        yield Line(text=f"[{left.source}]", indent=6)
    for bad in needs.known_bad:
        yield Line(text=message("recipe.known_bad", lang, versions=bad.versions), indent=4, strong=True)
        yield Line(text=spoken(bad.symptom, lang), indent=6)
        yield Line(text=bad.link, indent=6)
    for other in needs.companions:
        beside = {"package": other.package, "versions": other.versions}
        yield Line(text=message("recipe.companion", lang, **beside), indent=4, strong=True)
        yield Line(text=spoken(other.why, lang), indent=6)
        yield Line(text=f"[{other.source}]", indent=6)


def _quantization(option: QuantizationOption, lang: Language) -> Iterator[Line]:
    parts = [option.engine, message(f"recipe.how.{option.how.value}", lang)]
    if option.how.value != "online":
        parts.append(message("recipe.official" if option.official else "recipe.unofficial", lang))
    if option.hugging_face is not None:
        parts.append(option.hugging_face)
    if option.flag is not None:
        parts.append(option.flag if option.value is None else f"{option.flag} {option.value}")
    if option.most_tensor_parallel is not None:
        parts.append(message("recipe.most_tensor_parallel", lang, count=option.most_tensor_parallel))
    yield Line(text=f"{option.name}: {' · '.join(parts)}", indent=2)
    if option.files:
        yield Line(text=", ".join(option.files), indent=4)
    if option.caution is not None:
        yield Line(text=spoken(option.caution, lang), indent=4)
    yield Line(text=f"[{option.source}]", indent=4)


def _images(images: ImageBudget, lang: Language) -> Iterator[Line]:
    room = None if images.encoder_tokens is None else f"{images.encoder_tokens:,}"
    head = {"count": images.most_per_request, "max_pixels": images.max_pixels, "encoder_tokens": room}
    yield Line(text=message("recipe.images.head", lang, **head), indent=2)
    for screen in images.screens:
        sides = {"width": screen.width, "height": screen.height}
        costs = {"tokens": screen.tokens, "unbounded": screen.tokens_unbounded}
        yield Line(text=message("recipe.screen", lang, **sides, **costs), indent=2)


def _probe(probe: RecipeProbe, lang: Language) -> str:
    return message(f"recipe.probe.{kind_of(probe)}", lang, **_thresholds(probe))


def _thresholds(probe: RecipeProbe) -> Mapping[str, object]:
    if isinstance(probe, NoLeakedStopToken):
        return {"texts": " ".join(probe.forbidden)}
    if isinstance(probe, NoRepetition):
        return {"count": probe.most_repeats}
    if isinstance(probe, ReasoningLength):
        return {"count": probe.least_characters}
    if isinstance(probe, Grounding):
        return {"count": len(probe.pictures), "percent": probe.most_error_percent}
    if isinstance(probe, LargestImage):
        return {"width": probe.picture.width, "height": probe.picture.height}
    if isinstance(probe, ToolCall):
        return {"function": probe.function}
    if isinstance(probe, WarmedCompletion):
        return {"seconds": probe.within_s}
    return {"prompt": probe.prompt, "pattern": probe.expect_pattern}


def _clients(clients: ClientHints) -> str:
    said = clients.model_dump(exclude={"hint", "programs"}, exclude_none=True)
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:g}" for name, value in said.items()
    )


def _table(columns: str, rows: Iterator[str], lang: Language) -> list[str]:
    head = message(columns, lang)
    return [head, "|" + " --- |" * (head.count("|") - 1), *rows]


def _row(recipe: Recipe) -> str:
    source = recipe.source
    hub = source.hugging_face if isinstance(source, HubSource) else source.distribution
    engines = [f"{name} {needs.versions or ''}".strip() for name, needs in recipe.engines.items()] or [recipe.engine]
    forms = dict.fromkeys(option.name for option in recipe.quantizations)
    cells = (f"`{recipe.name}`", f"`{hub}`", recipe.license, "<br>".join(f"`{one}`" for one in engines))
    return f"| {' | '.join(cells)} | {recipe.context_tokens:,} | {', '.join(forms) or '-'} |"


def _bad_rows(recipes: Mapping[str, Recipe], lang: Language) -> Iterator[str]:
    for recipe in recipes.values():
        for engine, needs in recipe.engines.items():
            for bad in needs.known_bad:
                told = spoken(bad.symptom, lang).replace("|", "\\|")
                yield f"| `{recipe.name}` | {engine} | `{bad.versions}` | [{told}]({bad.link}) |"


def _screen_rows(recipe: Recipe) -> Iterator[str]:
    for screen in recipe.images.screens if recipe.images is not None else ():
        yield f"| {screen.width} × {screen.height} | {screen.tokens:,} | {screen.tokens_unbounded:,} |"

"""`gonogo docs TOPIC`: the annotated spec and its schema, the reasons, the recipes, and the pages of `docs/`.

A recipe's name is a topic too: everything that the recipe says, in the reader's language.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session

Topic = Annotated[Optional[str], typer.Argument(metavar="TOPIC", help=told("argument.topic"), show_default=False)]
Schema = Annotated[bool, typer.Option("--schema", help=told("option.schema"), show_default=False)]
BUILT_IN = ("spec", "reasons", "recipes", "recipe-schema", "profiles")
PROFILE = "profiles/"


def command(
    topic: Topic = None, schema: Schema = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    from gonogo.cli.session import open_session
    from gonogo.spec.recipes import recipes

    session = open_session(state_dir, json, lang)
    pages = {name: path for name, path in _pages(session).items() if name not in BUILT_IN}
    if topic is None:
        for name in (*BUILT_IN, *pages):
            session.line(name)
        return Outcome(result={"topics": [*BUILT_IN, *pages]})
    if topic == "spec":
        return _schema(session) if schema else _spec(session)
    if topic == "reasons":
        return _reasons(session)
    if topic == "recipes":
        return _recipes(session)
    if topic == "recipe-schema":
        return _recipe_schema(session)
    if topic in recipes():
        return _recipe(session, topic)
    if topic == "profiles":
        return _profiles(session)
    if topic in _profile_topics():
        return _profile(session, topic)
    if topic in pages:
        text = pages[topic].read_text(encoding="utf-8")
        session.line(text)
        return Outcome(result={"topic": topic, "text": text})
    from gonogo.words import nearest

    near = nearest(topic, (*BUILT_IN, *_profile_topics(), *pages, *recipes()))
    raise Refusal("TopicUnknown", WRONG_INPUT, {"asked": topic, "nearest": ", ".join(near) or None})


def _profile_topics() -> tuple[str, ...]:
    from gonogo.spec.profiles import built_in

    return tuple(f"{PROFILE}{name}" for name in built_in())


def _pages(session: Session) -> dict[str, Path]:
    """Pages by topic: those in the user's language take the place of the English ones."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "docs", package.parent.parent / "docs")
    folder = next((one for one in folders if one.is_dir()), None)
    files = sorted(folder.glob("**/*.md")) if folder is not None else []
    pages: dict[str, Path] = {}
    for file in files:
        assert folder is not None
        topic = file.relative_to(folder).as_posix().removesuffix(".md")
        chinese = topic.endswith(".zh-CN")
        topic = topic.removesuffix(".zh-CN")
        if chinese == (session.lang == "zh") or topic not in pages:
            pages[topic] = file
    return pages


def _schema(session: Session) -> Outcome:
    import json

    from gonogo.spec.schema import json_schema

    found = json_schema()
    session.line(json.dumps(found, indent=2, ensure_ascii=False))
    return Outcome(result=found)


def _spec(session: Session) -> Outcome:
    from gonogo.spec.example import example

    text = example(session.lang)
    session.line(text.rstrip("\n"))
    return Outcome(result={"topic": "spec", "text": text})


def _reasons(session: Session) -> Outcome:
    from gonogo.checks.catalogue import CHECKS, HOST_CHECKS

    listed = []
    for check in (*CHECKS, *HOST_CHECKS):
        session.out.print(f"{session.told('condition.' + check.condition.value)} · {check.name}", style="bold")
        for reason in check.reasons:
            session.line(f"  {reason}")
        stages = [stage.value for stage in check.stages]
        told_check = {"check": check.name, "condition": check.condition.value, "reasons": list(check.reasons)}
        listed.append({**told_check, "blocks": check.blocks, "stages": stages})
    return Outcome(result={"checks": listed})


def _recipes(session: Session) -> Outcome:
    from rich.padding import Padding

    from gonogo.spec.recipes import recipes
    from gonogo.words.recipe_page import spoken

    listed = {}
    for name, recipe in recipes().items():
        description = spoken(recipe.description, session.lang)
        session.out.print(name, style="bold", markup=False)
        session.out.print(Padding(description, (0, 0, 0, 2)), markup=False)
        listed[name] = {"description": description, "license": recipe.license, "engine": recipe.engine}
    session.line()
    session.say("recipe.one_more")
    return Outcome(result={"recipes": listed})


def _recipe(session: Session, name: str) -> Outcome:
    """One recipe in words; for programs the recipe itself."""
    from rich.padding import Padding
    from rich.text import Text

    from gonogo.spec.recipes import recipes
    from gonogo.words.recipe_page import recipe_lines

    recipe = recipes()[name]
    for line in recipe_lines(recipe, session.lang):
        if not line.text:
            session.line()
            continue
        text = Text(line.text, style="bold" if line.strong else "")
        session.out.print(Padding(text, (0, 0, 0, line.indent), expand=False))
    return Outcome(result={"recipe": recipe.model_dump(mode="json", exclude_none=True)})


def _recipe_schema(session: Session) -> Outcome:
    import json

    from gonogo.spec.recipe import recipe_schema

    found = recipe_schema()
    session.line(json.dumps(found, indent=2, ensure_ascii=False))
    return Outcome(result=found)


def _profiles(session: Session) -> Outcome:
    from gonogo.spec.profiles import built_in

    listed = {}
    for name, profile in built_in().items():
        description = profile.description.zh if session.lang == "zh" else profile.description.en
        session.out.print(f"profiles/{name}", style="bold", markup=False)
        session.out.print(f"  {description}", markup=False)
        listed[name] = {"description": description}
    return Outcome(result={"profiles": listed})


def _profile(session: Session, topic: str) -> Outcome:
    """The YAML of one profile and nothing else, to copy and to edit."""
    from gonogo.spec.profiles import texts

    text = texts()[topic.removeprefix(PROFILE)]
    session.line(text.rstrip("\n"))
    return Outcome(result={"topic": topic, "text": text})

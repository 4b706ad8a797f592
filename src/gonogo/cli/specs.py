"""From what stands on the command line to a `Spec`: a spec file, a model file, a recipe, and the options that override.

Not here: judging YAML (`gonogo.spec.load`). Every path in a spec becomes absolute, because control runs elsewhere.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

from gonogo.cli.refusal import WRONG_INPUT, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gonogo.cli.session import Session
    from gonogo.spec import Spec
    from gonogo.spec.recipe import Recipe

DEFAULT_RECIPE = "smollm2-135m"
DEFAULT_SPEC = "gonogo.yaml"
_LARGEST_SPEC_BYTES = 4 * 1024 * 1024
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_LISTEN = re.compile(r"(?P<address>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})", re.ASCII)


def spec_of(session: Session, what: str | None) -> Spec:
    """The spec that `what` means: a .yaml or .json file, a .gguf file, a recipe.

    None: ./gonogo.yaml, else the default recipe. Raises `Refusal` with exit code 2; every mistake of a spec file is
    printed first.
    """
    from gonogo.spec.recipe import resolve
    from gonogo.spec.recipes import recipes as all_recipes

    recipes = all_recipes()
    if what is None:
        what = DEFAULT_SPEC if Path(DEFAULT_SPEC).is_file() else DEFAULT_RECIPE
    if what in recipes:
        return resolve(_parsed(session, f"model: {what}", what), recipes)
    if what.lower().endswith((".yaml", ".yml", ".json")):
        return _resolved(_with_paths(_read(session, Path(what)), Path(what).parent, recipes), recipes)
    if what.lower().endswith(".gguf") or "/" in what:
        path = Path(what).expanduser().absolute()
        if not path.exists() and _HUB_ID.fullmatch(what) and not what.lower().endswith(".gguf"):
            return _resolved(_parsed(session, f"model: {json.dumps(what)}", what), recipes)
        if not path.exists():
            raise Refusal("SpecNotFound", WRONG_INPUT, {"path": str(path)})
        return _parsed(session, f"model: {json.dumps(str(path))}", what)
    raise _unknown_recipe(what, recipes)


def _resolved(spec: Spec, recipes: Mapping[str, Recipe]) -> Spec:
    """With what the recipe knows, be it named itself or by a hub id of its model."""
    from gonogo.spec.recipe import resolve
    from gonogo.spec.recipes import recipe_of_hub_id

    if spec.model in recipes or not _HUB_ID.fullmatch(spec.model):
        return resolve(spec, recipes)
    recipe = recipe_of_hub_id(spec.model)
    return spec if recipe is None else resolve(spec, {spec.model: recipe})


def overridden(
    spec: Spec, listen: str | None = None, hostnames: Sequence[str] | None = None, replicas: int | None = None
) -> Spec:
    """The spec with what the options say instead. Raises `Refusal` with exit code 2 for a value that is not allowed."""
    told: dict[str, Any] = json.loads(spec.model_dump_json(exclude_unset=True))
    gateway = dict(told.get("gateway") or {})
    if listen is not None:
        gateway |= listen_of(listen)
    if hostnames:
        gateway["hostnames"] = list(dict.fromkeys((*gateway.get("hostnames", ()), *hostnames)))
    if gateway:
        told["gateway"] = gateway
    if replicas is not None:
        if spec.external:
            words = "the spec names external replicas (replicas.external), and nothing is started"
            raise Refusal("OptionMistaken", WRONG_INPUT, {"option": f"--replicas {replicas}", "words": words})
        told["replicas"] = replicas
    return _validated(told, given={"gateway": listen or " ".join(hostnames or ()), "replicas": str(replicas)})


def _validated(told: Mapping[str, Any], given: Mapping[str, str]) -> Spec:
    from pydantic import ValidationError

    from gonogo.spec import Spec

    try:
        return Spec.model_validate_json(json.dumps(told))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0])
        option = {"replicas": "--replicas", "gateway": "--listen/--hostname"}.get(field, field)
        values = {"option": f"{option} {given.get(field, '')}".strip(), "words": first["msg"]}
        raise Refusal("OptionMistaken", WRONG_INPUT, values) from None


def listen_of(text: str) -> dict[str, Any]:
    """`address` and `port` of ADDRESS:PORT. Raises `Refusal` with exit code 2."""
    found = _LISTEN.fullmatch(text)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise Refusal("ListenMistaken", WRONG_INPUT, {"given": text})
    return {"address": found["address"].strip("[]"), "port": int(found["port"])}


def text_of(session: Session, path: Path) -> str:
    """The text of a file. Raises `Refusal` with exit code 2: not there, not readable, not UTF-8."""
    from gonogo.spec.load import decode
    from gonogo.spec.mistakes import SpecMistakes

    try:
        with open(path, "rb") as opened:
            content = opened.read(_LARGEST_SPEC_BYTES)
    except FileNotFoundError:
        raise Refusal("SpecNotFound", WRONG_INPUT, {"path": str(path)}) from None
    except OSError as error:
        raise Refusal("SpecUnreadable", WRONG_INPUT, {"path": str(path), "error": error.strerror}) from None
    try:
        return decode(content, str(path))
    except SpecMistakes as mistakes:
        raise mistaken(session, mistakes, str(path)) from None


def _read(session: Session, path: Path) -> Spec:
    return _parsed(session, text_of(session, path), str(path))


def _parsed(session: Session, text: str, filename: str) -> Spec:
    from gonogo.spec.load import parse
    from gonogo.spec.mistakes import SpecMistakes

    try:
        return parse(text, filename)
    except SpecMistakes as mistakes:
        raise mistaken(session, mistakes, filename) from None


def mistaken(session: Session, found: Any, filename: str) -> Refusal:
    """All mistakes on screen at once, and the same for programs."""
    told = [
        {
            "file": one.filename,
            "line": one.line,
            "column": one.column,
            "field": one.field,
            "reason": one.reason,
            "message": session.told(one.message, **one.words),
        }
        for one in found.mistakes
    ]
    if not session.json:
        for one in told:
            place = f"{one['file']}:{one['line']}:{one['column']}"
            session.err.print(f"✗ {place}: {one['message']}", markup=False, highlight=False, soft_wrap=True)
    values = {"count": len(told) + found.left_out, "file": filename}
    return Refusal("SpecMistaken", WRONG_INPUT, values, {"mistakes": told})


def _with_paths(spec: Spec, folder: Path, recipes: Mapping[str, Recipe]) -> Spec:
    """Paths of a spec file are relative to that file."""
    base = folder.absolute()

    def full(path: str | None) -> str | None:
        return path if path is None else os.path.normpath(base / Path(path).expanduser())

    changes: dict[str, Any] = {}
    is_file = spec.model.lower().endswith(".gguf")
    if not spec.external and spec.model not in recipes and (is_file or "/" in spec.model):
        local = full(spec.model)
        of_hub = not is_file and _HUB_ID.fullmatch(spec.model) is not None
        if not (of_hub and local is not None and not os.path.exists(local)):
            changes["model"] = local
    if spec.projector is not None:
        changes["projector"] = full(spec.projector)
    if spec.replicas is not None and spec.replicas.ca_file is not None:
        changes["replicas"] = spec.replicas.model_copy(update={"ca_file": full(spec.replicas.ca_file)})
    if spec.fallback is not None:
        files = {"key_file": full(spec.fallback.key_file), "ca_file": full(spec.fallback.ca_file)}
        changes["fallback"] = spec.fallback.model_copy(update=files)
    gateway = spec.gateway
    if gateway.certificate_file is not None or gateway.key_file is not None:
        files = {"certificate_file": full(gateway.certificate_file), "key_file": full(gateway.key_file)}
        changes["gateway"] = gateway.model_copy(update=files)
    if spec.queue is not None:
        files = {"password_file": full(spec.queue.password_file), "ca_file": full(spec.queue.ca_file)}
        changes["queue"] = spec.queue.model_copy(update=files)
    return spec.model_copy(update=changes) if changes else spec


def _unknown_recipe(asked: str, recipes: Mapping[str, Recipe]) -> Refusal:
    from gonogo.spec.recipe import nearest_recipe

    values = {"asked": asked, "nearest": nearest_recipe(asked, recipes), "known": sorted(recipes)}
    return Refusal("RecipeUnknown", WRONG_INPUT, values)

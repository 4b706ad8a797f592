"""From the words on the command line to the model that is wanted: its ids on the hubs, its files, or its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from gonogo.cli.fit_model import PATHS, not_known
from gonogo.cli.refusal import BLOCKED, WRONG_INPUT, Refusal

if TYPE_CHECKING:
    from gonogo.spec.recipe import Recipe

HUGGING_FACE, MODEL_SCOPE = "hf", "modelscope"
MODEL_SCOPE_ENDPOINT = "https://www.modelscope.cn"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWish:
    """A model that is wanted. `command`: the words that name it again. `folder`: it lies there, nothing is fetched.

    `modelscope`: its id there, None: not known. `only`: GGUF files, empty: safetensors.
    """

    command: str
    hugging_face: str | None = None
    modelscope: str | None = None
    only: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id that it has somewhere."""
        return tuple(dict.fromkeys(one for one in (self.hugging_face, self.modelscope) if one is not None))


def wish_of(asked: str, quantization: str | None = None, files: Sequence[str] = ()) -> ModelWish:
    """What `asked` means: a recipe, a folder or a hub id. Raises Refusal."""
    from gonogo.spec.recipes import recipe_of_hub_id, recipes

    named = recipes().get(asked)
    if named is not None:
        return wish_of_recipe(named, quantization, files)
    if quantization is not None:
        values = {
            "option": "--quantization",
            "words": f"{asked}: gonogo docs recipes",
            "command": "gonogo models fetch",
        }
        raise Refusal("OptionMistaken", WRONG_INPUT, values)
    folder = Path(asked).expanduser()
    if asked.startswith(PATHS) or (asked and folder.is_dir()):
        return ModelWish(command=asked, folder=folder.absolute())
    if "/" not in asked:
        raise not_known(asked)
    known = recipe_of_hub_id(asked)
    command = " ".join((asked, *(f"--file {name}" for name in files)))
    if known is not None:
        wish = wish_of_recipe(known, None, files)
        return ModelWish(command=command, hugging_face=wish.hugging_face, modelscope=wish.modelscope, only=wish.only)
    return ModelWish(command=command, hugging_face=asked, modelscope=asked, only=tuple(files))


def wish_of_recipe(recipe: Recipe, quantization: str | None = None, files: Sequence[str] = ()) -> ModelWish:
    """A recipe's model in one of its forms; None: as its makers publish it. Raises Refusal."""
    from gonogo.spec.recipe import PackageSource
    from gonogo.spec.recipe_parts import How

    if isinstance(recipe.source, PackageSource):
        raise Refusal("ModelInPackage", BLOCKED, {"model": recipe.name, "package": recipe.source.distribution})
    source = recipe.source
    command = " ".join((recipe.name, *(f"--file {name}" for name in files)))
    if quantization is None:
        return ModelWish(
            command=command, hugging_face=source.hugging_face, modelscope=source.modelscope, only=tuple(files)
        )
    asked = quantization.casefold()
    form = next((one for one in recipe.quantizations if one.name.casefold() == asked), None)
    if form is None or (form.how is How.GGUF and form.hugging_face is None):
        known = ", ".join(
            dict.fromkeys(one.name for one in recipe.quantizations if one.how is not How.GGUF or one.files)
        )
        values = {"model": recipe.name, "asked": f"--quantization {quantization}", "known": known}
        raise Refusal("NoWayLeft", WRONG_INPUT, values)
    own = form.hugging_face is not None
    return ModelWish(
        command=f"{command} --quantization {form.name}",
        hugging_face=form.hugging_face if own else source.hugging_face,
        modelscope=form.modelscope if own else source.modelscope,
        only=tuple(files) or form.files,
    )


def endpoint_of(given: str | None) -> str | None:
    """The hub of `--from`; None: Hugging Face, or where `HF_ENDPOINT` leads. Raises Refusal."""
    if given in (None, HUGGING_FACE):
        return None
    if given == MODEL_SCOPE:
        return MODEL_SCOPE_ENDPOINT
    if given is None or "://" not in given:
        values = {
            "option": "--from",
            "words": f"{given}: hf | modelscope | https://…",
            "command": "gonogo models fetch",
        }
        raise Refusal("OptionMistaken", WRONG_INPUT, values)
    return given

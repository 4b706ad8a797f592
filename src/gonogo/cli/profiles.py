"""From what stands after `--profile` to a `Profile`: the name of one that comes with gonogo, or a YAML file.

Not here: judging YAML (`gonogo.spec.load`) and judging a host (`gonogo.checks.profile`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gonogo.cli.refusal import WRONG_INPUT, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.spec.profile import Profile


def profile_of(session: Session, asked: str | None) -> Profile:
    """The profile that was asked for; None: the default one, which wishes nothing beyond what the model needs.

    Raises `Refusal` with exit code 2; every mistake of a file is printed first.
    """
    from gonogo.spec.profiles import DEFAULT, built_in

    known = built_in()
    if asked is None:
        return known[DEFAULT]
    if asked in known:
        return known[asked]
    if "/" in asked or asked.lower().endswith((".yaml", ".yml")):
        return _from_file(session, Path(asked).expanduser())
    from gonogo.words import nearest

    near = nearest(asked, known)
    values = {"asked": asked, "nearest": ", ".join(near) or None, "known": sorted(known)}
    raise Refusal("ProfileUnknown", WRONG_INPUT, values)


def _from_file(session: Session, path: Path) -> Profile:
    from gonogo.cli.specs import mistaken, text_of
    from gonogo.spec.mistakes import SpecMistakes
    from gonogo.spec.profile import load_profile

    text = text_of(session, path)
    try:
        return _with_paths(load_profile(text, str(path)), path.absolute().parent)
    except SpecMistakes as mistakes:
        raise mistaken(session, mistakes, str(path)) from None


def _with_paths(profile: Profile, base: Path) -> Profile:
    """Paths of tiers are relative to the profile's file."""
    from gonogo.checks.profile import TIERS

    tiers = {name: getattr(profile.storage, name) for name in TIERS}
    full = {
        name: tier.model_copy(update={"path": str(base / Path(tier.path).expanduser())})
        for name, tier in tiers.items()
        if tier is not None
    }
    return profile.model_copy(update={"storage": profile.storage.model_copy(update=full)})

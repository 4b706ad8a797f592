"""Which language to speak: what was asked for, else the environment, else English."""

from __future__ import annotations

from typing import Literal, Mapping, Union

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def choose_language(asked: Union[str, None], environment: Mapping[str, str]) -> Language:
    """`asked` (a `--lang` value) first, then GONOGO_LANG, then the first of LC_ALL, LC_MESSAGES, LANG that is set.

    Anything that does not start with `zh` is English: English when in doubt.
    """
    wishes = (asked, environment.get("GONOGO_LANG"))
    locale = (environment.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    for wish in (*wishes, *locale):
        if wish:
            return "zh" if wish.lower().startswith("zh") else "en"
    return "en"

"""The options that every verb has, and the words of `--help`. Light: `gonogo --help` imports it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Optional, Sequence

import typer

from gonogo.words import Language, choose_language, message


def language_asked(arguments: Sequence[str]) -> Language:
    """The language before options are parsed: for `--help`, and for mistakes in the options themselves."""
    for index, word in enumerate(arguments):
        if word.startswith("--lang="):
            return choose_language(word.partition("=")[2], os.environ)
        if word == "--lang" and index + 1 < len(arguments):
            return choose_language(arguments[index + 1], os.environ)
    return choose_language(None, os.environ)


def told(name: str) -> str:
    """A line of help in the user's language."""
    return message(f"help.{name}", language_asked(sys.argv[1:]))


StateDir = Annotated[
    Optional[str], typer.Option("--state-dir", metavar="DIR", help=told("option.state_dir"), show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help=told("option.json"), show_default=False)]
Lang = Annotated[Optional[str], typer.Option("--lang", metavar="en|zh", help=told("option.lang"), show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help=told("option.yes"), show_default=False)]
What = Annotated[
    Optional[str], typer.Argument(metavar="SPEC|RECIPE|MODEL", help=told("argument.what"), show_default=False)
]
ServiceName = Annotated[
    Optional[str], typer.Argument(metavar="SERVICE", help=told("argument.service"), show_default=False)
]
Listen = Annotated[
    Optional[str], typer.Option("--listen", metavar="ADDRESS:PORT", help=told("option.listen"), show_default=False)
]
HostNames = Annotated[
    Optional[list[str]], typer.Option("--hostname", metavar="NAME", help=told("option.hostname"), show_default=False)
]
EngineAsked = Annotated[
    Optional[str],
    typer.Option("--engine", metavar="NAME[==VERSION]", help=told("option.engine_asked"), show_default=False),
]
Downtime = Annotated[bool, typer.Option("--allow-downtime", help=told("option.allow_downtime"), show_default=False)]
ReplicaCount = Annotated[
    Optional[int], typer.Option("--replicas", metavar="N", help=told("option.replicas"), show_default=False)
]

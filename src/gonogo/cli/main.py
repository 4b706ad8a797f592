"""The entry point: verbs, and the one place where everything that went wrong becomes words and an exit code.

Exit codes: 0 done, 1 a bug of ours, 2 wrong input, 3 blocked by a finding, 4 the world did not comply, 130 Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import typer

from gonogo import __version__
from gonogo.cli import (
    apply,
    check,
    clients,
    docs,
    down,
    env,
    explain,
    fit,
    keys,
    logs,
    metrics,
    models,
    plan,
    render,
    report,
    status,
    tasks,
    up,
    usage,
)
from gonogo.cli.options import Lang, language_asked, told
from gonogo.cli.refusal import INTERRUPTED, OUR_BUG, WORLD_DID_NOT_COMPLY, WRONG_INPUT, Outcome, Refusal
from gonogo.words import finding_text, message

COMMON = ("--json", "--lang", "--state-dir", "--yes", "-y")
VERBS = (up, fit, check, plan, apply, status, usage, metrics, clients, logs, down, report, explain, docs)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Never raises."""
    words = _without_language(common_options_last(arguments))
    if words == ["--version"]:
        print(f"gonogo {__version__}")
        return 0
    return finish(lambda: application()(args=words, prog_name="gonogo", standalone_mode=False), words)


def common_options_last(arguments: Sequence[str]) -> list[str]:
    """`gonogo --json status` is `gonogo status --json`: options that every verb has may stand before it too."""
    before, rest = [], list(arguments)
    while rest and rest[0].partition("=")[0] in COMMON:
        takes_value = rest[0] in ("--lang", "--state-dir")
        before += rest[: 2 if takes_value else 1]
        del rest[: 2 if takes_value else 1]
    return rest + before if rest and not rest[0].startswith("-") else list(arguments)


def _without_language(words: list[str]) -> list[str]:
    """Help is in the language already (`told`); groups of verbs have no such option, and their help is asked too."""
    if not {"--help", "-h"} & set(words):
        return words
    kept = [word for before, word in zip(["", *words], words, strict=False) if "--lang" not in (before, word)]
    return [word for word in kept if not word.startswith("--lang=")]


def finish(verb: Callable[[], object], arguments: Sequence[str]) -> int:
    """Run a verb and tell what came of it, on screen or as one JSON object; returns the exit code. Never raises."""
    try:
        given = verb()
    except Refusal as refusal:
        return _refuse(refusal, arguments)
    except typer.TyperException as mistake:
        return _refuse(_wrong_usage(mistake), arguments)
    except (typer.Abort, KeyboardInterrupt):
        values = {"changed": message("interrupted.nothing", language_asked(arguments)), "next": None}
        return _refuse(Refusal("Interrupted", INTERRUPTED, values), arguments)
    except BrokenPipeError:
        # whoever read our output has gone; nothing can be told any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WORLD_DID_NOT_COMPLY
    except Exception as error:  # noqa: BLE001 (the boundary: whatever it is, it is written down and told)
        return _refuse(_told(error) or _crash(error, arguments), arguments)
    if isinstance(given, Outcome):
        if "--json" in arguments:
            _print_json(given.result)
        return given.exit_code
    return given if isinstance(given, int) else 0


def application() -> typer.Typer:
    """Every verb. Modules of verbs are light; what is heavy they import when they run."""
    made = typer.Typer(
        help=told("gonogo"),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich makes --help twice as slow
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    for verb in VERBS:
        name = verb.__name__.rpartition(".")[2]
        made.command(name, help=told(name))(verb.command)
    made.add_typer(env.application(), name="env", help=told("env"))
    made.add_typer(models.application(), name="models", help=told("models"))
    made.add_typer(keys.application(), name="keys", help=told("keys"))
    made.add_typer(tasks.application(), name="tasks", help=told("tasks"))
    made.add_typer(render.application(), name="render", help=told("render"))
    made.callback()(_options)
    return made


def _options(
    version: bool = typer.Option(False, "--version", help=told("option.version"), is_eager=True),
    _lang: Lang = None,
) -> None:
    if version:
        typer.echo(f"gonogo {__version__}")
        raise typer.Exit


def _wrong_usage(mistake: typer.TyperException) -> Refusal:
    context = getattr(mistake, "ctx", None)
    command = context.command_path if context is not None else "gonogo"
    return Refusal("WrongUsage", WRONG_INPUT, {"words": mistake.format_message(), "command": command})


def _told(error: Exception) -> Refusal | None:
    """What the parts below say in exceptions of their own; None: not theirs, so a bug of ours."""
    from gonogo.api.client import ControlRefused, ControlSilent
    from gonogo.store.faults import StoreError

    if isinstance(error, ControlRefused):
        return Refusal(error.reason, error.exit_code, error.values)
    if isinstance(error, ControlSilent):
        return Refusal("ControlSilent", WORLD_DID_NOT_COMPLY, {"words": str(error)})
    if isinstance(error, StoreError):
        reason, values = error.refusal
        return Refusal(reason, WORLD_DID_NOT_COMPLY, values)
    return None


def _crash(error: Exception, arguments: Sequence[str]) -> Refusal:
    from gonogo.cli.crash import write_crash

    file = write_crash("".join(traceback.format_exception(error)), arguments)
    return Refusal("OurBug", OUR_BUG, {"kind": type(error).__name__, "file": str(file)})


def _refuse(refusal: Refusal, arguments: Sequence[str]) -> int:
    lang = language_asked(arguments)
    text = finding_text(refusal.reason, _listed(refusal.values), lang)
    if "--json" in arguments:
        told_error = {
            "reason": refusal.reason,
            "values": dict(refusal.values),
            "message": text.seen,
            "remedy": text.remedy,
            "exit_code": refusal.exit_code,
        }
        _print_json({"error": told_error, **refusal.details})
        return refusal.exit_code
    from gonogo.cli.session import console

    err = console(stderr=True, quiet=False)
    err.print(f"✗ {text.seen}", markup=False, highlight=False, soft_wrap=True, style="bold")
    if text.remedy:
        err.print(f"  → {text.remedy}", markup=False, highlight=False, soft_wrap=True)
    return refusal.exit_code


def _listed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Lists as a person writes them."""
    return {
        name: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        for name, value in values.items()
    }


def _print_json(result: Mapping[str, Any]) -> None:
    print(json.dumps(result, ensure_ascii=False, default=_plain), flush=True)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


if __name__ == "__main__":
    main()

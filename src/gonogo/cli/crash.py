"""Keeps the traceback of a bug of ours in a file, so that the screen shows one line and the file tells all.

Not here: what went wrong by the user's or the world's doing; that is a `Refusal`.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Sequence

from gonogo import __version__
from gonogo.runtimes.paths import StatePaths, default_state_dir


def write_crash(trace: str, arguments: Sequence[str]) -> Path:
    """Write the traceback to `logs/crash-*.txt` of the state directory, else to the temporary one; returns the file."""
    text = f"gonogo {__version__}\nverb: {_verb(arguments)}\n\n{trace}"
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (StatePaths.of(_state_dir(arguments)).logs, Path(tempfile.gettempdir())):
        file = folder / name
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
        return file
    return Path(os.devnull)


def _state_dir(arguments: Sequence[str]) -> str | Path:
    for index, word in enumerate(arguments):
        if word.startswith("--state-dir="):
            return word.partition("=")[2]
        if word == "--state-dir" and index + 1 < len(arguments):
            return arguments[index + 1]
    return default_state_dir()


def _verb(arguments: Sequence[str]) -> str:
    """Only the verb and the names of options: a value may be a secret."""
    return " ".join(word.partition("=")[0] for word in arguments if word.startswith("-") or word == arguments[0])

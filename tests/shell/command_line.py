"""Runs the real command line without a terminal: inside this process, or as one of its own where that matters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

from gonogo.cli.main import run
from tests.free_ports import free_port

LIMIT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output: exactly one line."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def environment(state_dir: Path, **more: str) -> dict[str, str]:
    """A plain one: no locale, no colours, nothing of whoever runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "PYTHONPATH") if name in os.environ}
    return {**kept, "GONOGO_STATE_DIR": str(state_dir), "LC_ALL": "C.UTF-8", **more}


def write_spec(folder: Path, model: str = "smollm2-135m") -> None:
    """A `gonogo.yaml`, which is taken by default, with a port that is free: another service may have the usual one."""
    text = f"service: {model}\nmodel: {model}\ngateway: {{port: {free_port()}}}\n"
    (folder / "gonogo.yaml").write_text(text, encoding="utf-8")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gonogo.cli.main", *words]


def gonogo(state_dir: Path, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run `gonogo WORDS` to its end inside this process, which is several times faster than starting one."""
    out, err = io.StringIO(), io.StringIO()
    surroundings = environment(state_dir, **(env or {}))
    redirected = (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err))
    with _surrounded(surroundings, cwd or state_dir.parent, words), redirected[0], redirected[1]:
        code = run(words)
    return Ran(code=code, out=out.getvalue(), err=err.getvalue())


def spawned(state_dir: Path, *words: str, env: Mapping[str, str] | None = None) -> Ran:
    """Run `gonogo WORDS` to its end as a process of its own."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=state_dir.parent,
        env=environment(state_dir, **(env or {})),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


@contextlib.contextmanager
def _surrounded(environ: Mapping[str, str], cwd: Path, words: tuple[str, ...]) -> Iterator[None]:
    before, folder, argv = dict(os.environ), os.getcwd(), sys.argv
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    sys.argv = ["gonogo", *words]
    try:
        yield
    finally:
        sys.argv = argv
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)

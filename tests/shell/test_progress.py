"""What a command that waits tells: here of a replica that loads, whose log is the only one that knows."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gonogo.cli.progress import LONGEST_SAID, Progress
from gonogo.cli.session import Session, open_session

SAID = "(EngineCore pid=3305) INFO 11-26 21:24:27 [default_loader.py:430] Loading weights took 2.88 seconds\n"


class Waiting:
    """A session whose progress is read, in a state directory with one replica's log."""

    def __init__(self, folder: Path, log: str, lang: str = "en") -> None:
        self.read = io.StringIO()
        made = open_session(str(folder), json=True, lang=lang)
        self.session: Session = replace(made, err=Console(file=self.read, width=200))
        (folder / "logs").mkdir()
        (folder / "logs" / "replica-glm-1-0.log").write_text(log)

    def told(self, **replica: Any) -> str:
        progress = Progress(self.session)
        progress.loading([{"id": "glm/1/0", "health": "starting", "age_s": 31.4, **replica}])
        return self.read.getvalue()


def test_a_replica_that_loads_is_told_with_what_its_log_said_last(tmp_path: Path) -> None:
    said = "replica glm/1/0 loads, for 31 s now: Loading weights took 2.88 seconds\n"
    assert Waiting(tmp_path, f"earlier\n{SAID}\n").told().endswith(said)


def test_nothing_is_told_of_a_replica_that_is_ready_or_has_just_begun(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, SAID)
    assert waiting.told(health="ready") + waiting.told(age_s=1.0) == ""


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("", "…"),
        ("\n \n", "…"),
        ("shards:  25%\rshards:  50%\r", "shards:  50%"),
        ("one\x1b[31mred\n", "one [31mred"),
        ("x" * 500, "x" * LONGEST_SAID + "…"),
    ],
    ids=["no line yet", "empty lines", "a bar that is written over", "colours", "a long line"],
)
def test_of_a_log_its_last_line_is_told_in_short(tmp_path: Path, log: str, told: str) -> None:
    assert Waiting(tmp_path, log).told().endswith(f"for 31 s now: {told}\n")


def test_where_there_is_no_terminal_it_is_told_at_times_and_not_each_second(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, SAID, lang="zh")
    progress = Progress(waiting.session)
    for second in range(30, 34):
        progress.loading([{"id": "glm/1/0", "health": "starting", "age_s": second}])
    (line,) = waiting.read.getvalue().splitlines()
    assert line.endswith("副本 glm/1/0 正在加载，已 30 秒：Loading weights took 2.88 seconds")

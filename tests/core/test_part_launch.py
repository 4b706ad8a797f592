"""What the parts are started with."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from gonogo.control.part_launch import launch_of
from gonogo.facts.part import PARTS, POLICY, RELAY
from gonogo.runtimes.paths import StatePaths


def test_policy_servers_hear_of_the_end_of_every_stream() -> None:
    paths = StatePaths.of(Path("/state"))
    command = launch_of(POLICY, 0, paths).command
    heard = [word for before, word in pairwise(command) if before == "--relay-log"]
    assert heard == [str(paths.relay_log(index)) for index in range(PARTS[RELAY])] != []

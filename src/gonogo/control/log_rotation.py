"""Bounds every log file. Those of the gateway are read by offset, so they are renamed, never emptied."""

from __future__ import annotations

import re

import httpx

from gonogo.gateway.access_log import ROTATE_BYTES, rotate_log
from gonogo.runtimes.local import rotate
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.unix_http import over

ANSWER_LIMIT_S = 2.0
_RENAMED = re.compile(r"\.\d{8}\.log$")


def rotate_logs(paths: StatePaths, limit_bytes: int = ROTATE_BYTES) -> None:
    """One round. What Envoy was not told (it hangs, or is not there) it is told in the next one."""
    for log in paths.logs.glob("*.log"):
        if not log.name.endswith(".1.log"):
            rotate(log)
    of_envoy = (paths.access_log, paths.inner_log)
    for log in paths.gateway.glob("*.log"):
        if log not in of_envoy and not _RENAMED.search(log.name):
            rotate_log(log, limit_bytes)  # a relay sees for itself that the name is gone
    told = [log for log in of_envoy if rotate_log(log, limit_bytes)]
    if told:
        _reopen(paths)


def _reopen(paths: StatePaths) -> None:
    transport = over(paths.admin_socket)
    try:
        with httpx.Client(transport=transport, timeout=ANSWER_LIMIT_S) as client:
            client.post("http://admin/reopen_logs")
    except httpx.HTTPError:
        return

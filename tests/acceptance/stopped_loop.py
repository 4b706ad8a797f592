"""Stops the one thread of a process that computes, and not the others: a hang that `/health` does not see."""

from __future__ import annotations

import ctypes
import os

_SEIZE, _INTERRUPT, _WAIT_FOR_ALL = 0x4206, 0x4207, 0x40000000


def stop_busiest_thread(pid: int) -> int:
    """Stop the thread that has used the most processor time, by ptrace, until the process ends; its id.

    `pid`: a child of the caller. Raises `OSError` where the system does not allow it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    thread = max((int(one) for one in os.listdir(f"/proc/{pid}/task")), key=lambda one: _spent(pid, one))
    for request in (_SEIZE, _INTERRUPT):
        if library.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"thread {thread} of {pid} cannot be stopped")
    return thread


def bury(thread: int) -> None:
    """After its process was killed: whoever stopped a thread must also take note of its end, or the process stays."""
    ended = False
    while not ended:
        try:
            _, status = os.waitpid(thread, _WAIT_FOR_ALL)
        except ChildProcessError:
            return
        ended = os.WIFEXITED(status) or os.WIFSIGNALED(status)


def _spent(pid: int, thread: int) -> int:
    with open(f"/proc/{pid}/task/{thread}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

"""A fence around a process that needs nothing from outside: it can open no connection and start no program.

A seccomp filter (Linux, x86-64 and ARM64), which no thread and no child of the process can take off again. Connections
that others make to it, files and memory are as before.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_REFUSED = {
    "x86_64": (0xC000003E, (42, 59, 322)),
    "aarch64": (0xC00000B7, (203, 221, 281)),
}
"""Machine → its number in the filter's data, and those of connect, execve and execveat there."""
_LOAD, _EQUAL, _AT_LEAST, _ANSWER = 0x20, 0x15, 0x35, 0x06
_MACHINE_AT, _CALL_AT = 4, 0
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_OTHER_TABLE = 0x40000000
"""Calls from here on are those of a second table (x32) with other numbers: all of them are refused."""


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


def refuse_outward() -> None:
    """From here on `connect`, `execve` and `execveat` fail with EACCES in this thread and all that it starts.

    Call it before other threads are started: those that run already are not fenced. Raises OSError where it cannot be
    done: another system, another processor, or a kernel that refuses it.
    """
    known = _REFUSED.get(platform.machine())
    if platform.system() != "Linux" or known is None:
        raise OSError(errno.ENOSYS, f"no fence is known for {platform.system()} on {platform.machine()}")
    steps = _steps(*known)
    kept = ctypes.create_string_buffer(steps)
    program = _Program(len(steps) // 8, ctypes.addressof(kept))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or library.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program)):
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refuses a seccomp filter ({errno.errorcode.get(number, number)})")


def _steps(machine: int, calls: tuple[int, ...]) -> bytes:
    """The filter: of another machine or table, or one of these calls: EACCES; everything else is allowed."""
    refuse = len(calls) + 2
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 0, refuse + 1, machine),
        (_LOAD, 0, 0, _CALL_AT),
        (_AT_LEAST, refuse - 1, 0, _OTHER_TABLE),
        *((_EQUAL, refuse - 2 - index, 0, call) for index, call in enumerate(calls)),
        (_ANSWER, 0, 0, _ALLOW),
        (_ANSWER, 0, 0, _FAIL | errno.EACCES),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)

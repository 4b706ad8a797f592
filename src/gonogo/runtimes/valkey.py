"""How the embedded Valkey is run: one command line, no file. Every setting is here, each with its reason.

Not here: who starts and watches it (`gonogo.control`), what is kept in it (`gonogo.gateway.policy.shared`).
"""

from __future__ import annotations

from pathlib import Path

from gonogo.runtimes.programs import valkey_binary

MEMORY_BYTES = 256 * 1024 * 1024
MOST_CLIENTS = 512


def valkey_command(socket: Path, directory: Path) -> tuple[str, ...]:
    """The command: it listens on `socket` (mode 0600) and nowhere else, and keeps everything below `directory`.

    SIGTERM writes out what is not on disk yet. A kill loses at most the last second (`appendfsync everysec`).
    """
    # Through env: a program that is not there must be a part that dies with a word in its log, and no failed action,
    # which would hold up everything else. Without it each policy server counts by itself.
    return (
        *("/usr/bin/env", valkey_binary(), "--port", "0"),
        *("--unixsocket", str(socket), "--unixsocketperm", "600"),
        *("--dir", str(directory), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        # A full one refuses to write: what is forgotten silently would be a limit that does not hold, or a lost task.
        *("--maxmemory", str(MEMORY_BYTES), "--maxmemory-policy", "noeviction"),
        *("--maxclients", str(MOST_CLIENTS), "--databases", "4"),
        # It would write its title over its environment, which holds the marks that control knows it by.
        *("--set-proc-title", "no"),
        # To standard output, which the launcher made a file that is rotated.
        *("--daemonize", "no", "--logfile", "", "--always-show-logo", "no"),
        # CONFIG, FLUSHALL, SHUTDOWN, KEYS, MONITOR and the like: nobody who can reach the socket needs them.
        *("--user", "default", "on", "nopass", "~*", "&*", "+@all", "-@dangerous", "+info"),
    )

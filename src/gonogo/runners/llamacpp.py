"""Runs llama.cpp's own HTTP server, as the `xllamacpp` wheel carries it, in this process, on loopback only.

Not here: which settings a service needs (`gonogo.engines.llamacpp` decides them) and who may ask (the gateway).
It runs on the Python of a locked environment too, which has xllamacpp and nothing of ours: it imports no gonogo.
Every way to fail that is known ends with exit code 1 and one line, `gonogo.runner: REASON: what was seen`, which
`gonogo.engines.llamacpp.explain_exit` reads. SIGTERM ends it at once, the gateway has drained before: with exit code 0
once it serves, by the signal itself while it loads (the library lets no Python run until the model is loaded).
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import ipaddress
import os
import signal
import socket
import sys
from typing import Any, Sequence, Union

try:
    from gonogo.runners.fence import refuse_outward
except ImportError:  # started as a file, by the isolated Python of an environment that has the engine and no gonogo
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    from fence import refuse_outward  # type: ignore[import-not-found, no-redef]

BUFFER_SIZES_PRINTED, WARNINGS_PRINTED = 4, 2
"""Verbosity while it loads, the lowest at which llama.cpp prints its buffer sizes, and verbosity while it serves."""
SET_VERBOSITY = "_Z30common_log_set_verbosity_tholdi"
"""`common_log_set_verbosity_thold(int)`, which the wheel exports and its Python part does not offer."""
END = (signal.SIGTERM, signal.SIGINT)


Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class EngineError(Exception):
    """A known way to fail. `reason` is the stable code that the engine adapter knows."""

    def __init__(self, reason: str, seen: str) -> None:
        super().__init__(seen)
        self.reason = reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 asked to end, 1 could not serve, 2 wrong arguments."""
    options = _parse(arguments)
    print(f"gonogo.runner: starting with {options.model}", file=sys.stderr, flush=True)
    try:
        _check_address(options.address)
        _check_file(options.model, "EngineModelUnreadable")
        if options.projector is not None:
            _check_file(options.projector, "EngineProjectorUnreadable")
            _fence()
        _check_port(str(options.address), options.port)
        server = _start(options)
    except EngineError as error:
        print(f"gonogo.runner: {error.reason}: {error}", file=sys.stderr, flush=True)
        return 1
    _print_warnings_only(xllamacpp_file=sys.modules["xllamacpp.xllamacpp"].__file__)
    print(f"gonogo.runner: listening on {server.listening_address}", file=sys.stderr, flush=True)
    _wait_until_told_to_end()
    # Not `return`: the server's destructor would wait for the requests in flight.
    os._exit(0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gonogo.runners.llamacpp", description=__doc__)
    parser.add_argument("--model", required=True, help="path of a GGUF file")
    parser.add_argument("--alias", required=True, help="the model id that clients see")
    parser.add_argument("--address", type=ipaddress.ip_address, required=True, help="a loopback address")
    parser.add_argument("--port", type=_port, required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens of one slot, prompt and answer together")
    parser.add_argument("--slots", type=int, required=True, help="requests worked on at the same time")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="most prompt tokens computed in one step")
    parser.add_argument("--projector", help="path of a GGUF file with a vision projector; absent: text only")
    parser.add_argument("--image-tokens", type=int, help="most tokens of one picture; absent: as the projector says")
    parser.add_argument("--http-threads", type=int, required=True, help="connections answered at the same time")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise argparse.ArgumentTypeError(f"{number} is not a port, 1 to 65535 are")
    return number


def _wait_until_told_to_end() -> None:
    """Block until SIGTERM or SIGINT, whichever of the server's many threads the kernel gives it to."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno())
    for number in END:
        signal.signal(number, lambda *_: None)
    receiver.recv(1)


def _print_warnings_only(xllamacpp_file: str | None) -> None:
    """From here on a request leaves no lines: a busy log would fill the disk and push out why the engine died."""
    setter = getattr(ctypes.CDLL(xllamacpp_file), SET_VERBOSITY, None)
    if setter is not None:  # another build may not export it: then the log is only longer
        setter(WARNINGS_PRINTED)


def _check_address(address: Address) -> None:
    if not address.is_loopback:
        raise EngineError("EngineAddressNotLoopback", f"{address} is not a loopback address")


def _check_file(path: str, reason: str) -> None:
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise EngineError(reason, f"{path}: {error.strerror}") from error
    if magic != b"GGUF":
        raise EngineError(reason, f"{path} is not a GGUF file")


def _fence() -> None:
    """Once pictures are served: llama.cpp would fetch any URL, and give what it cannot decode to `ffprobe`."""
    try:
        refuse_outward()
    except OSError as error:
        raise EngineError("EngineFenceMissing", error.strerror or str(error)) from error


def _check_port(address: str, port: int) -> None:
    """llama.cpp would say the same only in its log, after it has started."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free, as for llama.cpp
        try:
            probe.bind((address, port))
        except OSError as error:
            reason = "EnginePortTaken" if error.errno == errno.EADDRINUSE else "EnginePortRefused"
            raise EngineError(reason, f"{address}:{port}: {error.strerror}") from error


def _start(options: argparse.Namespace) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise EngineError("EngineNotInstalled", f"xllamacpp cannot be loaded: {error}") from error
    try:
        return xllamacpp.Server(_parameters(xllamacpp.CommonParams(), options))
    except MemoryError as error:
        raise EngineError("EngineOutOfMemory", "llama.cpp could not get the memory it asked for") from error
    except RuntimeError as error:  # its cause stands in the lines that llama.cpp printed before
        raise EngineError("EngineRefusedToStart", str(error)) from error
    except (AttributeError, TypeError) as error:  # a release that lacks a setting is not served without it
        raise EngineError("EngineRefusedToStart", f"xllamacpp {xllamacpp.__version__}: {error}") from error


def _parameters(parameters: Any, options: argparse.Namespace) -> Any:
    parameters.model.path = options.model
    parameters.model_alias = {options.alias}
    if hasattr(parameters, "hostnames"):
        parameters.hostnames = [str(options.address)]
    else:  # before 2026.10
        parameters.hostname = str(options.address)
    parameters.port = options.port
    parameters.n_ctx = options.context * options.slots
    parameters.n_parallel = options.slots
    parameters.kv_unified = False  # each slot has its own context: a long request takes nothing from the others
    parameters.n_batch = parameters.n_ubatch = options.batch
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
    parameters.n_threads_http = options.http_threads
    parameters.n_gpu_layers = 0
    parameters.fit_params = False  # the plan has decided the sizes; llama.cpp must not shrink them silently
    parameters.ctx_shift = False  # a full context is an error, not forgotten beginnings
    parameters.cache_ram_mib = 0  # prompts stay in their slots; a second cache (8 GiB by default) is not in the plan
    parameters.cache_idle_slots = False
    parameters.n_ctx_checkpoints = 0
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = False  # would show prompts
    parameters.endpoint_props = False
    parameters.ui = False
    parameters.offline = True
    parameters.cors_origins = ""  # the default echoes any origin: a web page could ask an engine on loopback
    parameters.cors_credentials = False
    parameters.verbosity = BUFFER_SIZES_PRINTED
    if options.projector is not None:
        _see(parameters, options)
    return parameters


def _see(parameters: Any, options: argparse.Namespace) -> None:
    parameters.mmproj.path = options.projector
    parameters.mmproj_use_gpu = False
    parameters.media_path = ""  # no file of this host is a picture
    if options.image_tokens is not None:
        parameters.image_max_tokens = parameters.mtmd_batch_max_tokens = options.image_tokens


if __name__ == "__main__":
    sys.exit(main())

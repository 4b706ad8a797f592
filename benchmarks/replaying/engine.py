"""A program: llama.cpp's server with its own defaults (four slots that share one context), on one thread.

Usage: engine.py MODEL PORT. What differs from the defaults: the port, one thread, no GPU, the counters, as many
connections as clients open (a request that waits takes one), and the niceness that our replicas have.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import xllamacpp

NICENESS = 5


def main(model: str, port: int) -> None:
    os.nice(NICENESS)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.model_alias = {"replay"}
    if hasattr(parameters, "hostnames"):
        parameters.hostnames = ["127.0.0.1"]
    else:
        parameters.hostname = "127.0.0.1"
    parameters.port = port
    # What llama-server makes of an absent -np; the library's own default is one slot.
    parameters.n_parallel = 4
    parameters.kv_unified = True
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.endpoint_metrics = True
    parameters.n_threads_http = 256
    parameters.verbosity = 2
    server = xllamacpp.Server(parameters)
    print(f"listening on {server.listening_address}", flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

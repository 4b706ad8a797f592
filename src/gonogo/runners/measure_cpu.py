"""Measures this host's processor (f32 matrix products) and main memory (STREAM's copy and add) with numpy.

Prints one JSON object per line: `{"step": …}` as it goes on, `{"result": …}` at the end. Not here: what is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from glob import glob
from threading import Barrier, Thread
from typing import Any, Callable, Sequence

SIDE = 2048
"""Three matrices of 16 MiB: a product takes 17 GFLOP, long enough to keep every core busy."""
SMALLEST_ARRAY_BYTES, LARGEST_ARRAY_BYTES = 64 * 1024**2, 512 * 1024**2
TIMES_CACHE = 4
"""STREAM's own rule: an array has at least four times the size of the last cache."""
THREAD_SETTINGS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure for about three times `--seconds`. Returns the exit code: 0, or 1 with a `{"problem": …}` line."""
    options = _parse(arguments)
    for name in THREAD_SETTINGS:  # read when numpy is first imported
        os.environ[name] = str(options.threads)
    try:
        import numpy
    except ImportError as error:
        _say(problem=f"numpy cannot be loaded: {error}")
        return 1
    size = _array_bytes(options.bytes)
    try:
        _say(step="matrix")
        flops = _products(numpy, options.seconds)
        _say(step="memory")
        copied = _stream(numpy, options.threads, size, options.seconds, arrays=2)
        added = _stream(numpy, options.threads, size, options.seconds, arrays=3)
    except MemoryError:
        _say(problem="too little memory is free to measure")
        return 1
    _say(
        result={
            "threads": options.threads,
            "flops_f32": flops,
            "copy_bytes_per_s": copied,
            "add_bytes_per_s": added,
            "array_bytes": size,
        }
    )
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gonogo.runners.measure_cpu", description=__doc__)
    parser.add_argument("--threads", type=int, required=True, help="as many as cores may be used")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each of the three measurements")
    parser.add_argument("--bytes", type=int, default=LARGEST_ARRAY_BYTES, help="size of one array at most")
    return parser.parse_args(arguments)


def _products(numpy: Any, seconds: float) -> float:
    """Operations per second of the best product: 2·n³ for n × n, f32."""
    left = numpy.random.default_rng(1).random((SIDE, SIDE), dtype=numpy.float32)
    right, product = left.T.copy(), numpy.empty_like(left)
    return 2.0 * SIDE**3 / _best(lambda: numpy.matmul(left, right, out=product), seconds)


def _stream(numpy: Any, threads: int, size: int, seconds: float, arrays: int) -> float:
    """Bytes read and written per second: copy (two arrays) or add (three), each thread in memory it touched first."""
    words = size // 8 // threads
    gate = Barrier(threads + 1)
    stop = False

    def work() -> None:
        target, first = numpy.zeros(words), numpy.ones(words)
        second = numpy.ones(words) if arrays == 3 else None
        while True:
            gate.wait()
            if stop:
                return
            if second is None:
                numpy.copyto(target, first)
            else:
                numpy.add(first, second, out=target)
            gate.wait()

    workers = [Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()

    def once() -> None:
        gate.wait()
        gate.wait()

    once()
    took = _best(once, seconds)
    stop = True
    gate.wait()
    return arrays * words * 8 * threads / took


def _best(work: Callable[[], object], seconds: float) -> float:
    """The shortest of all runs in this time, after one that warms up."""
    work()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _array_bytes(most: int) -> int:
    """One array: four times the last cache, within bounds, and three of them in at most a quarter of free memory."""
    wanted = max(SMALLEST_ARRAY_BYTES, TIMES_CACHE * _last_cache_bytes())
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(SMALLEST_ARRAY_BYTES // 8, min(wanted, most, LARGEST_ARRAY_BYTES, free // 12))


def _last_cache_bytes() -> int:
    sizes = [0]
    for place in glob("/sys/devices/system/cpu/cpu0/cache/index*/size"):
        with open(place, encoding="ascii") as file:
            text = file.read(32).strip()
        if text[:-1].isdigit():
            sizes.append(int(text[:-1]) * {"K": 1024, "M": 1024**2}.get(text[-1], 0))
    return max(sizes)


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())

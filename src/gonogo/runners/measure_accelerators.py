"""Measures GPUs with torch: matrix products in FP16 and BF16, their memory, and copies from one to another.

Runs under the Python of an *engine's* environment, where gonogo is not installed: nothing of ours is imported, and the
syntax is that of Python 3.8. Prints one JSON object per line, as `measure_cpu` does. `--device cpu` runs the very same
measurements on two pretended devices without a GPU; only the device's name differs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from typing import Any, Callable, Optional, Sequence

LARGEST_SIDE, SMALLEST_SIDE = 16384, 256
LONG_ENOUGH_S = 0.02
"""A product that takes this long hides what starting it costs."""
LARGEST_BUFFER_BYTES = 1024**3
LINK_BYTES = 256 * 1024**2


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure every device. Returns the exit code: 0, or 1 with a `{"problem": …}` line."""
    options = _parse(arguments)
    try:
        torch: Any = importlib.import_module("torch")
    except Exception as error:  # noqa: BLE001 (a broken torch raises anything: OSError, ImportError, RuntimeError …)
        _say(problem=f"torch cannot be loaded: {type(error).__name__}: {error}")
        return 1
    devices = _devices(torch, options.device)
    if not devices:
        _say(problem=f"torch {torch.__version__} sees no GPU (built for CUDA {torch.version.cuda})")
        return 1
    found = []
    for index, device in enumerate(devices):
        _say(step="device", index=index, count=len(devices))
        found.append(_measured(torch, index, device, options.seconds))
    _say(step="links")
    links = _links(torch, devices, options.seconds)
    _say(
        result={
            "torch_version": str(torch.__version__),
            "nccl_version": _nccl(torch),
            "accelerators": found,
            "links": links,
        }
    )
    return 0


def _parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement of each device")
    return parser.parse_args(arguments)


def _devices(torch: Any, kind: str) -> list[str]:
    if kind == "cpu":
        return ["cpu", "cpu"]
    if not torch.cuda.is_available():
        return []
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def _measured(torch: Any, index: int, device: str, seconds: float) -> dict[str, Any]:
    """One device. What cannot be measured is left None, with the problem in torch's own words."""
    seen: dict[str, Any] = {"index": index, "name": _name(torch, device), "problem": None}
    measures: tuple[tuple[str, Callable[[], float]], ...] = (
        ("flops_fp16", lambda: _products(torch, device, torch.float16, seconds)),
        ("flops_bf16", lambda: _products(torch, device, torch.bfloat16, seconds)),
        ("copy_bytes_per_s", lambda: _copy(torch, device, seconds)),
    )
    for field, measure in measures:
        try:
            seen[field] = measure()
        except RuntimeError as error:  # out of memory, an unsupported type, a lost device: torch says all of them so
            seen[field] = None
            seen["problem"] = str(error).strip().split("\n")[0][:200]
    return seen


def _name(torch: Any, device: str) -> str:
    return str(torch.cuda.get_device_name(device)) if device != "cpu" else "cpu"


def _products(torch: Any, device: str, kind: Any, seconds: float) -> float:
    """Operations per second of the best product of n x n, 2 * n**3 each, with n as large as it takes."""
    side = SMALLEST_SIDE
    took = _product(torch, device, kind, side, 0.0)
    while took < LONG_ENOUGH_S and side < LARGEST_SIDE:
        side *= 2
        took = _product(torch, device, kind, side, 0.0)
    return 2.0 * side**3 / _product(torch, device, kind, side, seconds)


def _product(torch: Any, device: str, kind: Any, side: int, seconds: float) -> float:
    """Seconds of the best product with this side."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.float32).to(kind) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=kind)
    return _best(torch, device, lambda: torch.matmul(left, right, out=out), seconds)


def _copy(torch: Any, device: str, seconds: float) -> float:
    """Bytes read and written per second by a copy inside the device's own memory."""
    size = min(LARGEST_BUFFER_BYTES, _free_bytes(torch, device) // 8)
    source = torch.ones(size, device=device, dtype=torch.uint8)
    target = torch.empty(size, device=device, dtype=torch.uint8)
    return 2.0 * size / _best(torch, device, lambda: target.copy_(source), seconds)


def _links(torch: Any, devices: list[str], seconds: float) -> list[dict[str, Any]]:
    """Every ordered pair; each copy waits for both ends."""
    found = []
    for first, source in enumerate(devices):
        for second, target in enumerate(devices):
            if first == second:
                continue
            try:
                found.append(_link(torch, (first, source), (second, target), seconds))
            except RuntimeError as error:
                _say(step="link_failed", first=first, second=second, problem=str(error).split("\n")[0][:200])
    return found


def _link(torch: Any, start: tuple[int, str], end: tuple[int, str], seconds: float) -> dict[str, Any]:
    (first, source), (second, target) = start, end
    here = torch.ones(LINK_BYTES, device=source, dtype=torch.uint8)
    there = torch.empty(LINK_BYTES, device=target, dtype=torch.uint8)

    def copy() -> None:
        there.copy_(here, non_blocking=True)
        _wait(torch, source)

    took = _best(torch, target, copy, min(seconds, 0.5))
    direct = None if source == "cpu" else bool(torch.cuda.can_device_access_peer(second, first))
    return {"first": first, "second": second, "bytes_per_s": LINK_BYTES / took, "direct": direct}


def _best(torch: Any, device: str, work: Callable[[], object], seconds: float) -> float:
    """The shortest of all runs in this time, after one that warms up; every run is waited for."""
    work()
    _wait(torch, device)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        _wait(torch, device)
        times.append(time.perf_counter() - began)
    return min(times)


def _wait(torch: Any, device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _free_bytes(torch: Any, device: str) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device != "cpu" else 8 * 256 * 1024**2


def _nccl(torch: Any) -> Optional[str]:
    """The NCCL that this torch was built with; None where it has none."""
    try:
        version = torch.cuda.nccl.version()
    except Exception:  # noqa: BLE001 (a build without NCCL raises anything)
        return None
    return ".".join(map(str, version)) if isinstance(version, tuple) else None


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""As much of torch as the measuring program asks for, on two pretended GPUs of numpy arrays; it does compute.

`FAKE_TORCH` changes what it is: `none` sees no GPU, `broken` cannot be loaded, `full` has no memory left on GPU 1.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy

KIND = os.environ.get("FAKE_TORCH", "")
if KIND == "broken":
    raise OSError("libcudart.so.12: cannot open shared object file: No such file or directory")
__version__ = "9.9.9+fake"
float16, bfloat16, float32, uint8 = numpy.float16, numpy.float32, numpy.float32, numpy.uint8


class version:
    cuda = "12.4"


class Tensor:
    """An array and the name of the device that it is said to lie on."""

    def __init__(self, array: Any, device: str) -> None:
        self.array, self.device = array, device

    def to(self, kind: Any) -> Tensor:
        return Tensor(self.array.astype(kind), self.device)

    def copy_(self, other: Tensor, non_blocking: bool = False) -> Tensor:
        numpy.copyto(self.array, other.array)
        return self


def _room(device: str) -> None:
    if KIND == "full" and device == "cuda:1":
        raise RuntimeError("CUDA out of memory. Tried to allocate 128.00 MiB.\nand more lines")


def randn(rows: int, columns: int, device: str, dtype: Any) -> Tensor:
    _room(device)
    return Tensor(numpy.ones((rows, columns), dtype=dtype), device)


def empty(*shape: int, device: str, dtype: Any) -> Tensor:
    _room(device)
    return Tensor(numpy.zeros(shape, dtype=dtype), device)


def ones(*shape: int, device: str, dtype: Any) -> Tensor:
    _room(device)
    return Tensor(numpy.ones(shape, dtype=dtype), device)


def matmul(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    time.sleep(0.021 if left.array.shape[0] >= 512 else 0)  # no faster than this, so that sides stay small
    small = min(256, left.array.shape[0])
    product = left.array[:small, :small].astype("f4") @ right.array[:small, :small].astype("f4")
    out.array[:small, :small] = product
    return out


class cuda:
    class nccl:
        @staticmethod
        def version() -> tuple[int, int, int]:
            return (2, 21, 5)

    @staticmethod
    def is_available() -> bool:
        return KIND != "none"

    @staticmethod
    def device_count() -> int:
        return 2

    @staticmethod
    def get_device_name(device: str) -> str:
        return "NVIDIA H100 80GB HBM3"

    @staticmethod
    def mem_get_info(device: str) -> tuple[int, int]:
        return (256 * 1024**2, 512 * 1024**2)

    @staticmethod
    def synchronize(device: str) -> None:
        return None

    @staticmethod
    def can_device_access_peer(device: int, peer: int) -> bool:
        return True

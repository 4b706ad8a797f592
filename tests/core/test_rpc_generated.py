"""src/gonogo/rpc/v1 is what protoc makes of the proto, byte for byte. `--accept` writes it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PROTOS = SOURCE / "gonogo/rpc/proto/gonogo/v1"
FILES = ("inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py")


def locked() -> str:
    lines = (SOURCE.parent / "requirements-dev.lock").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("grpcio-tools=="))
    return line.partition("==")[2].split()[0]


def generate(into: Path) -> None:
    # The proto stands where clients of every language look for it, and the package where Python does.
    words = (f"-Igonogo/rpc/v1={PROTOS}", *(f"--{kind}_out={into}" for kind in ("python", "pyi", "grpc_python")))
    command = [sys.executable, "-m", "grpc_tools.protoc", *words, "gonogo/rpc/v1/inference.proto"]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.skipif(version("grpcio-tools") != locked(), reason="another grpcio-tools than the locked one")
def test_the_generated_files_are_those_of_the_proto(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    generate(SOURCE if pytestconfig.getoption("--accept") else tmp_path)
    made = SOURCE if pytestconfig.getoption("--accept") else tmp_path
    for name in FILES:
        kept = (SOURCE / "gonogo/rpc/v1" / name).read_bytes()
        assert (made / "gonogo/rpc/v1" / name).read_bytes() == kept, f"{name}: run this test with --accept"


def test_a_client_of_the_generated_files_needs_nothing_else_of_gonogo() -> None:
    program = (
        "import sys, gonogo.rpc.v1.inference_pb2_grpc\n"
        "ours = {name for name in sys.modules if name.startswith('gonogo.')}\n"
        "print(sorted(name for name in ours if not name.startswith('gonogo.rpc')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"

"""Condition 3, the model as a file: whole and right, but not the quantization that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from gonogo.runtimes.gguf_file import read_model
from tests.drills.harness import JAPAN, Second, Yard, assert_only, spec, wrong
from tests.free_ports import free_port


def test_quantization_as_asked(yard: Yard, tmp_path: Path) -> None:
    """Eight bits asked for, four bits answer: proven, every check green, and nobody is told."""
    changes: Mapping[str, Any] = {
        "service": "eight-bits",
        "quantization": "q8_0",
        "replicas": {"min": 1, "max": 1},
        "expect": {"concurrent_requests": 1, "context_tokens": 1024},
    }
    asked = spec(**changes, gateway={"port": free_port()})
    model = "model/smollm2-135m"
    found = assert_only(yard.refused(asked), "quantization_as_asked", "QuantizationDiffers", model)
    assert found["values"] == {"asked": "q8_0", "seen": "q4_1"}
    place = tmp_path / "eight-bits.yaml"
    place.write_text(asked.model_dump_json())
    with yard.faults.broken(without=["quantization_as_asked", "failover"]):
        try:
            result = yard.run("up", str(place), "--yes", "--json")
            assert result.code == 0, f"proven: {result.out}\n{result.err}"
            assert wrong(yard.control.check("eight-bits")) == {}, "and all looks well"
            (replica,) = yard.replicas("eight-bits")
            assert _quantizations(replica["pid"]) == {"q4_1"}, "what the answering process has in its memory"
            service = Second(asked=asked, port=asked.gateway.port, key=result.json["api_key"])
            with service.client(yard) as client:
                answer = yard.chat(client, JAPAN, tokens=12, model=asked.service)
            assert answer.status_code == 200
            assert "Tokyo" in answer.text
            assert "q4_1" not in answer.text.lower()
        finally:
            yard.remove("eight-bits")


def _quantizations(pid: int) -> set[str | None]:
    """Of the model files that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    files = {line.split(maxsplit=5)[5] for line in lines if line.endswith(".gguf")}
    return {read_model(file, file).quantization for file in files}

"""Golden commands: each recipe on its smallest and its usual card, as a process and in a container.

A case says what is asked; `--accept` writes what comes out of plan and adapter, and the diff is the review.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gonogo.engines.container import Container, container_command
from gonogo.engines.hardware import parse_hardware
from gonogo.engines.model import Launch, Placement
from gonogo.engines.settings import EngineSettings, Refused, half_on_old_cards
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import ReplicaName
from gonogo.plan.capacity import Ask
from gonogo.plan.choose import Demand, Option, choose
from gonogo.plan.ways import ways_of_recipe
from gonogo.spec import Spec
from gonogo.spec.recipe import HubSource
from gonogo.spec.recipe_parts import How
from tests.core.gpu_engines import ADAPTERS, PYTHON, RECIPES, SERVING, launch, placement

CASES = Path(__file__).parents[1] / "cases" / "engines" / "commands"
PATHS = sorted(CASES.glob("*.json"))
CONTAINER = {"tool": "docker", "image": "vllm/vllm-openai:v0.33.0", "user": "1000:1000"}


def _chosen(asked: dict[str, Any]) -> Option:
    recipe = RECIPES[asked["recipe"]]
    ways = [way for way in ways_of_recipe(recipe) if way.engine == asked["engine"]]
    demand = Demand(concurrent_requests=asked.get("requests", 1), context_tokens=recipe.context_tokens)
    version = tuple(int(part) for part in asked["version"].split(".")[:3])
    best = choose(ways, parse_hardware(asked["on"]), demand, Ask(engine=asked["engine"], version=version)).best
    assert best is not None, f"{asked['recipe']} does not fit on {asked['on']}"
    return best


def _placement(devices: int) -> Placement:
    name = ReplicaName(service="phone-agent", revision=3, index=0)
    cards = tuple(str(card) for card in range(devices))
    return Placement(name=name, host="gpu-1", address="127.0.0.1", port=18100, threads=8, devices=cards, seed="5f3a")


def _launched(asked: dict[str, Any]) -> tuple[Launch, Placement]:
    recipe, best = RECIPES[asked["recipe"]], _chosen(asked)
    engine, serving = asked["engine"], best.capacity.serving
    online = next(
        (option.value for option in recipe.quantizations if best.way.online and option.how is How.ONLINE), None
    )
    assert isinstance(recipe.source, HubSource)
    made = ADAPTERS[engine](
        PYTHON,
        EngineSettings(
            version=asked["version"],
            serving=serving,
            source=f"/models/{best.way.source if not best.way.online else recipe.source.hugging_face}",
            needs=recipe.engines[engine],
            quantization=online,
            dtype=half_on_old_cards(best.capacity.device.capability),
            media_domains=tuple(asked.get("media_domains", ())),
            planned=best.capacity.memory,
        ),
    )
    here = _placement(serving.devices)
    return made.launch(Spec(service="phone-agent", model=recipe.name), ModelFacts(asked=recipe.name), here), here


def _outcome(asked: dict[str, Any]) -> dict[str, Any]:
    started, here = _launched(asked)
    if "container" in asked:
        return {"words": list(container_command(started, here, Container(**asked["container"])))}
    return {"words": list(started.command), "environment": dict(sorted(started.environment.items()))}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_command_is_the_one_that_was_reviewed(path: Path, pytestconfig: pytest.Config) -> None:
    case = json.loads(path.read_text())
    outcome = _outcome(case["asked"])
    if pytestconfig.getoption("--accept"):
        path.write_text(json.dumps({**case, "expected": outcome}, indent=1, ensure_ascii=False) + "\n")
        case["expected"] = outcome
    assert case["expected"] == outcome


def test_every_recipe_is_there_on_every_engine_that_can_be_planned() -> None:
    there = {(case["recipe"], case["engine"]) for case in map(_asked, PATHS)}
    served = {
        (name, way.engine)
        for name, recipe in RECIPES.items()
        if isinstance(recipe.source, HubSource)
        for way in ways_of_recipe(recipe)
        if way.engine in ADAPTERS
    }
    assert there == served


def test_each_flag_that_a_failure_taught_stands_in_a_reviewed_command() -> None:
    words = {word for path in PATHS for word in json.loads(path.read_text())["expected"]["words"]}
    recipes = {
        flag.flag.replace("_", "-")
        for recipe in RECIPES.values()
        for engine, needs in recipe.engines.items()
        if engine in ADAPTERS
        for flag in needs.flags
    }
    taught = {
        *("--dtype", "--quantization", "--allowed-media-domains", "--gpu-memory-utilization", "--shm-size"),
        *("--mem-fraction-static", "--tensor-parallel-size", "--max-logprobs", "--disable-log-requests"),
    }
    assert recipes | taught <= words


def test_a_container_has_no_network_of_the_host_no_rights_and_a_folder_it_cannot_write() -> None:
    words = _contained()
    pairs = set(pairwise(words))
    assert {
        ("--network", "bridge"),
        ("--publish", "127.0.0.1:18100:18100"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--user", "1000:1000"),
        ("--pull", "never"),
        ("--mount", "type=bind,source=/models/autoglm,target=/model,readonly"),
        ("--shm-size", str(8 * 1024**3)),
    } <= pairs
    assert "--read-only" in words
    assert not {"host", "--privileged", "--ipc", "--pid", "--net", "-p", "-v"} & set(words)
    assert [word for word in words if word.startswith("/tmp")] == [f"/tmp:rw,exec,nosuid,nodev,size={16 * 1024**3}"]


@pytest.mark.parametrize("engine", sorted(ADAPTERS))
def test_inside_the_engine_serves_the_mounted_folder_on_the_containers_own_network(engine: str) -> None:
    words = _contained(engine)
    inside = words[words.index(CONTAINER["image"]) + 1 :]
    assert inside[0] == "-m" and PYTHON not in words
    assert inside[inside.index("--host") + 1] == "0.0.0.0"
    assert "/model" in inside and "/models/autoglm" not in inside
    assert words[words.index("--entrypoint") + 1] == "python3"


def test_cards_are_given_by_the_tool_and_counted_anew_inside() -> None:
    docker, podman = _contained(), _contained(tool="podman")
    assert docker[docker.index("--gpus") + 1] == '"device=0,1"'
    assert [after for before, after in pairwise(podman) if before == "--device"] == [
        "nvidia.com/gpu=0",
        "nvidia.com/gpu=1",
    ]
    told = {word.partition("=")[0] for before, word in pairwise(docker) if before == "--env"}
    assert not {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "PYTHONPATH", "VLLM_HOST_IP"} & told
    assert {"HF_HUB_OFFLINE", "VLLM_SERVER_DEV_MODE", "PYTHONUTF8", "HOME"} <= told


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("tool", "nerdctl", "EngineContainerToolUnknown"),
        ("image", "vllm/vllm-openai", "EngineContainerImageNotPinned"),
        ("image", "vllm/vllm-openai:latest", "EngineContainerImageNotPinned"),
        ("image", "--privileged", "EngineContainerImageNotPinned"),
        ("user", "0:0", "EngineContainerUserRefused"),
        ("user", "root", "EngineContainerUserRefused"),
        ("user", "1000", "EngineContainerUserRefused"),
    ],
)
def test_a_container_that_is_not_safe_is_not_described(field: str, value: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        Container(**{**CONTAINER, field: value})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("zai-org/AutoGLM-Phone-9B", "EngineContainerNeedsFolder"),
        ("/models/a,readonly=false", "EngineContainerFolderRefused"),
        ("/models/a:b", "EngineContainerFolderRefused"),
    ],
)
def test_a_container_serves_a_plain_folder_only(source: str, reason: str) -> None:
    here = placement()
    with pytest.raises(Refused) as caught:
        container_command(launch("vllm", place=here, source=source), here, Container(**CONTAINER))
    assert caught.value.reason == reason


def test_a_container_without_cards_asks_for_none() -> None:
    here = placement(devices=())
    words = container_command(launch("vllm", place=here), here, Container(**CONTAINER))
    assert not {"--gpus", "--device"} & set(words)


def _asked(path: Path) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads(path.read_text())["asked"]
    return asked


def _contained(engine: str = "vllm", **changes: str) -> tuple[str, ...]:
    here = placement(devices=("0", "1"))
    started = launch(engine, place=here, serving=replace(SERVING, tensor=2), cuda_home="/usr/local/cuda")
    return container_command(started, here, Container(**{**CONTAINER, **changes}))

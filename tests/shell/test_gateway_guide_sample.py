"""The guide's Envoy sample (§4.1): ours is accepted by Envoy, the printed one is not, and why."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gonogo.gateway.render import read_static_gateway, render_envoy
from tests.shell.gateway_parts import ENVOY

GUIDE = Path(__file__).parents[2] / "examples" / "guide" / "envoy"


def validate(text: str, tmp_path: Path) -> tuple[bool, str]:
    """What `envoy --mode validate` says of this configuration."""
    path = tmp_path / "envoy.yaml"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "--config-path", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def test_the_sample_is_what_its_input_renders_and_envoy_accepts_it(tmp_path: Path) -> None:
    rendered = render_envoy(read_static_gateway((GUIDE / "gateway.yaml").read_text(encoding="utf-8")))
    kept = (GUIDE / "envoy.yaml").read_text(encoding="utf-8")
    assert kept.split("\n", 1)[1] == rendered
    accepted, said = validate(kept, tmp_path)
    assert accepted, said


def test_the_sample_says_what_the_guide_says() -> None:
    ours = yaml.safe_load((GUIDE / "envoy.yaml").read_text(encoding="utf-8"))["static_resources"]
    printed = yaml.safe_load((GUIDE / "as-printed.yaml").read_text(encoding="utf-8"))["static_resources"]
    assert ours["clusters"] == printed["clusters"]
    assert ours["listeners"][0]["address"] == printed["listeners"][0]["address"]
    assert manager(ours)["route_config"] == manager(printed)["route_config"]


def test_the_printed_text_is_refused_for_two_things_it_lacks(tmp_path: Path) -> None:
    printed = yaml.safe_load((GUIDE / "as-printed.yaml").read_text(encoding="utf-8"))
    accepted, said = validate(yaml.safe_dump(printed), tmp_path)
    assert not accepted
    assert "StatPrefix" in said
    manager(printed["static_resources"])["stat_prefix"] = "ingress_http"
    accepted, said = validate(yaml.safe_dump(printed), tmp_path)
    assert not accepted
    assert "envoy.filters.http.router" in said
    manager(printed["static_resources"])["http_filters"][0]["typed_config"] = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    }
    accepted, said = validate(yaml.safe_dump(printed), tmp_path)
    assert accepted, said


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("{cluster: a, listen: {host: h, port: 0}, endpoints: [{host: h, port: 1}]}", "listen.port"),
        ("{cluster: a, listen: {host: h, port: 1}, endpoints: []}", "endpoints"),
        ("{cluster: a, listen: {host: h, port: 1}, endpoints: [{host: h, port: 1}], lb: rr}", "lb"),
    ],
)
def test_a_wrong_input_is_refused_by_the_name_of_its_field(wrong: str, named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_static_gateway(wrong)
    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [named]


def manager(resources: Any) -> Any:
    return resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]

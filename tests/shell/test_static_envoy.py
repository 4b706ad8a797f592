"""The real Envoy takes each configuration that `gonogo render envoy` can print."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from gonogo.gateway.static import Wanted, static_configuration
from gonogo.gateway.translate import translate
from tests.core.test_translate_cases import FILES, read
from tests.shell.gateway_parts import ENVOY
from tests.shell.test_external_behind_envoy import certificate


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".in.json"))
def test_envoy_validates_it(path: Path, tmp_path: Path) -> None:
    ca, crt, key = certificate(tmp_path, "server", "localhost")
    content = static_configuration(translate(read(path)), Wanted(certificate_file=crt, key_file=key))
    (tmp_path / "api-key").write_text("sk-1")
    text = json.dumps(content).replace("/etc/pki/ca.pem", ca).replace("/etc/gonogo/key", str(tmp_path / "api-key"))
    text = text.replace("/state/gateway/", f"{tmp_path}/")
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(json.loads(text)), encoding="utf-8")
    words = [ENVOY, "--mode", "validate", "--config-path", str(file), "--component-log-level", "misc:error"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""Stands for Open-AutoGLM's main.py, which is not in the package `phone-agent`: the same options and variables.

It asks the phone and the model what main.py asks before it starts (a short answer, not streamed, within 30 s), and
leaves the task to the package. To run the real one: GONOGO_AUTOGLM_MAIN=FILE (`test_phone_agent.py`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from openai import OpenAI
from phone_agent import PhoneAgent
from phone_agent.model import ModelConfig

PREFLIGHT_LIMIT_S = 30.0


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--base-url", default=os.getenv("PHONE_AGENT_BASE_URL", "http://localhost:8000/v1"))
    options.add_argument("--model", default=os.getenv("PHONE_AGENT_MODEL", "autoglm-phone-9b"))
    options.add_argument("--apikey", default=os.getenv("PHONE_AGENT_API_KEY", "EMPTY"))
    options.add_argument("task")
    given = options.parse_args()
    for words in (["version"], ["devices"], ["shell", "ime", "list", "-s"]):
        subprocess.run(["adb", *words], check=True, capture_output=True, timeout=10)
    client = OpenAI(base_url=given.base_url, api_key=given.apikey, timeout=PREFLIGHT_LIMIT_S)
    hi: list[dict[str, str]] = [{"role": "user", "content": "Hi"}]
    try:
        said = client.chat.completions.create(
            model=given.model, messages=hi, max_tokens=5, temperature=0.0, stream=False
        )
    except Exception as error:  # as main.py: whatever it is, it is shown and the program ends
        print(f"Error: {error}")
        sys.exit(1)
    assert said.choices
    model = ModelConfig(base_url=given.base_url, model_name=given.model, api_key=given.apikey)
    print(f"\nResult: {PhoneAgent(model_config=model).run(given.task)}")


if __name__ == "__main__":
    main()

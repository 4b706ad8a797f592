"""vLLM on NVIDIA cards: the command line and environment, hardened, and how to read its metrics and its log.

    adapter = Vllm("/envs/vllm/bin/python", EngineSettings(version="0.33.0", serving=capacity.serving, needs=…))
    adapter.launch(spec, model, placement).command

Flags and variables were read in the wheels of 0.10.0, 0.10.2, 0.11.0, 0.11.2, 0.12.0, 0.16.0, 0.18.0, 0.19.0, 0.20.0,
0.21.0, 0.26.0 and 0.33.0 (`arg_utils.py`, `cli_args.py`, `envs.py`). Not here: its memory (`vllm_memory.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from gonogo.engines.exits import explain_log
from gonogo.engines.memory import MemoryPlan
from gonogo.engines.model import Launch, Placement, Progress
from gonogo.engines.options import Option, Options, plain, table
from gonogo.engines.prometheus import largest, samples, total
from gonogo.engines.readiness import Readiness
from gonogo.engines.settings import (
    EngineSettings,
    Limits,
    check_start,
    gpu_environment,
    printed_memory,
    replica_plan,
    share_text,
)
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import MemoryMeasured
from gonogo.spec import Spec

NICENESS, NICENESS_ON_PROCESSOR = 0, 5
LOAD_LIMIT_S = 1800.0
"""Hundreds of GB from a slow disk, and kernels that are compiled at the first start."""
READINESS = Readiness(
    alive="/health",
    models="/v1/models",
    completion="/v1/chat/completions",
    metrics="/metrics",
    generates=False,
    refused_while_loading=True,
)
IMAGES = "--limit-mm-per-prompt"
ENCODER = "--mm-encoder-tp-mode"
SHM_NAME, MOST_N, REDIRECTS = (
    "VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME",
    "VLLM_MAX_N_SEQUENCES",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS",
)


@dataclass(frozen=True, slots=True)
class Vllm:
    """The adapter. `interpreter` is the Python of the environment that holds the engine, on the replica's host."""

    interpreter: str
    settings: EngineSettings
    name = "vllm"
    load_limit_s = LOAD_LIMIT_S
    part = "VLLM::"

    def launch(self, spec: Spec, model: ModelFacts, placement: Placement) -> Launch:
        """The process of one replica. Raises Refused for a start that cannot be right, ValueError for no model."""
        check_start(self.settings, placement)
        source = self.settings.source_of(model)
        command = (
            *(self.interpreter, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", source, "--served-model-name", spec.service),
            *("--host", placement.address, "--port", str(placement.port)),
            *self._planned(),
            *self._bounds(),
            *OPTIONS.recipe_words(self.settings),
        )
        return Launch(command=command, environment=self._environment(source, placement), niceness=self._niceness)

    @property
    def _niceness(self) -> int:
        """On the processor it must leave time for the gateway."""
        return NICENESS if self.settings.cache_bytes is None else NICENESS_ON_PROCESSOR

    def limits(self) -> Limits:
        """What the command bounds, and what is left to the gateway."""
        version, asked = self.settings.version, self.settings
        unfenced = set()
        if not OPTIONS.has("--allowed-media-domains", version):
            unfenced.add("media_urls")
        if not OPTIONS.has(MOST_N, version):
            unfenced.add("choices")
        return Limits(
            context_tokens=asked.serving.context_tokens,
            sequences=asked.serving.sequences,
            choices=None if "choices" in unfenced else asked.most_choices,
            logprobs=asked.most_logprobs,
            unfenced=frozenset(unfenced),
        )

    def memory(self, spec: Spec, model: ModelFacts, replicas: int) -> MemoryPlan:
        """The plan that the settings were chosen by. Raises ValueError where there is none."""
        del spec, model, replicas
        return replica_plan(self.settings)

    def progress(self, metrics_text: str) -> Progress | None:
        """What `/metrics` says, all engines of the replica together; None when it is not vLLM's or lacks a counter.

        The counters grow with every step. `iteration_tokens_total` is a histogram: its count is the number of steps.
        """
        seen = samples(metrics_text, "vllm:")
        generated, prompt = total(seen, "vllm:generation_tokens_total"), total(seen, "vllm:prompt_tokens_total")
        running, waiting = total(seen, "vllm:num_requests_running"), total(seen, "vllm:num_requests_waiting")
        if generated is None or prompt is None or running is None or waiting is None:
            return None
        return Progress(
            tokens_generated=generated,
            prompt_tokens=prompt,
            requests_running=running,
            requests_waiting=waiting,
            steps=total(seen, "vllm:iteration_tokens_total_count"),
            cache_used=largest(seen, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        )

    def measured(self, log_text: str) -> MemoryMeasured:
        """The sizes that the last start in this log printed, of all its cards; None for those it did not."""
        return printed_memory(log_text, self.settings.serving)

    def explain_exit(self, log_text: str) -> str | None:
        """The reason code for what the last start in this log died of; None when the log does not say."""
        return explain_log(log_text)

    def _planned(self) -> tuple[str, ...]:
        """The plan's numbers: what was not planned is left to the engine."""
        asked, serving = self.settings, self.settings.serving
        words: list[str] = ["--max-model-len", str(serving.context_tokens)]
        if asked.cache_bytes is not None:
            words += ["--kv-cache-memory-bytes", str(asked.cache_bytes)]
        elif serving.share is not None:
            words += ["--gpu-memory-utilization", share_text(serving.share)]
        if serving.tensor > 1:
            words += ["--tensor-parallel-size", str(serving.tensor)]
        if serving.pipeline > 1:
            words += ["--pipeline-parallel-size", str(serving.pipeline)]
        if serving.sequences is not None:
            words += ["--max-num-seqs", str(serving.sequences)]
        if serving.batch_tokens is not None:
            words += ["--max-num-batched-tokens", str(serving.batch_tokens)]
        if serving.kv_bytes == 1:
            words += ["--kv-cache-dtype", "fp8"]
        if asked.quantization is not None:
            words += ["--quantization", asked.quantization]
        if asked.dtype is not None:
            words += ["--dtype", asked.dtype]
        if not serving.graphs:
            words += ["--enforce-eager"]
        if asked.chat_template is not None:
            words += ["--chat-template", asked.chat_template]
        return tuple(words)

    def _bounds(self) -> tuple[str, ...]:
        """What no client may do: fetch from any host, ask for whole vocabularies, have its prompt logged, read docs,
        send more pictures than were planned; and the image encoder held as it was planned."""
        asked, images = self.settings, self.settings.serving.images
        entries: list[tuple[str, ...]] = [
            ("--allowed-media-domains", *asked.media_hosts),
            ("--max-logprobs", str(asked.most_logprobs)),
            ("--disable-log-requests",),
            ("--disable-uvicorn-access-log",),
            ("--disable-fastapi-docs",),
        ]
        if images is not None and not self._recipe_sets(IMAGES):
            entries.append((IMAGES, f'{{"image": {images}}}'))
        if asked.serving.encoder_copied and asked.serving.tensor > 1 and not self._recipe_sets(ENCODER):
            entries.append((ENCODER, "data"))
        return OPTIONS.only_known(entries, asked.version)

    def _recipe_sets(self, name: str) -> bool:
        needs = self.settings.needs
        return needs is not None and any(plain(flag.flag) == name for flag in needs.flags)

    def _environment(self, source: str, placement: Placement) -> Mapping[str, str]:
        """Doors that stand open by a variable are shut by it, even where they are shut by default."""
        version, name = self.settings.version, placement.name
        known = {
            SHM_NAME: f"gonogo_{name.service}_{name.revision}_{name.index}_{placement.seed or placement.port}",
            MOST_N: str(self.settings.most_choices),
            REDIRECTS: "0",
        }
        return {
            **gpu_environment(self.settings, source, placement),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_DO_NOT_TRACK": "1",
            "VLLM_SERVER_DEV_MODE": "0",
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
            "VLLM_HOST_IP": placement.address,
            **(_on_processor(placement) if self.settings.cache_bytes is not None else {}),
            **{key: value for key, value in known.items() if OPTIONS.has(key, version)},
        }


def _on_processor(placement: Placement) -> Mapping[str, str]:
    """Its own binding gives every replica of a host the same cores."""
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(placement.threads)}


_ALL = "arg_utils.py and cli_args.py of every version that was read"
OPTIONS = Options(
    engine="vLLM",
    oldest="0.10.0",
    table=table(
        Option("--allowed-media-domains", "arg_utils.py: in 0.11.0, not in 0.10.2", since="0.11.0"),
        Option("--max-logprobs", _ALL),
        Option("--disable-log-requests", "prompts are logged by default in 0.10.0, not in 0.10.2", until="0.10.2"),
        Option("--disable-uvicorn-access-log", _ALL),
        Option("--disable-fastapi-docs", _ALL),
        Option("--mm-processor-kwargs", _ALL),
        Option("--limit-mm-per-prompt", _ALL + "; a JSON object"),
        Option("--chat-template-content-format", _ALL),
        Option(ENCODER, "arg_utils.py: in 0.10.2, not in 0.10.0", since="0.10.2"),
        Option("--mm-processor-cache-type", "arg_utils.py: in 0.11.0, not in 0.10.2", since="0.11.0"),
        Option("--tool-call-parser", _ALL),
        Option("--enable-auto-tool-choice", _ALL),
        Option("--reasoning-parser", _ALL),
        Option("--enable-expert-parallel", _ALL),
        Option(SHM_NAME, "envs.py: one fixed name in 0.11.0 to 0.12.0, made up from 0.16.0 on", since="0.11.0"),
        Option(MOST_N, "envs.py and sampling_params.py: in 0.19.0 (16384), not in 0.18.0", since="0.19.0"),
        Option(REDIRECTS, "envs.py: in 0.11.0, not in 0.10.2", since="0.11.0"),
    ),
    own=frozenset(
        {
            *("--model", "--served-model-name", "--host", "--port", "--uds", "--max-model-len", "--max-num-seqs"),
            *("--gpu-memory-utilization", "--tensor-parallel-size", "--pipeline-parallel-size", "--kv-cache-dtype"),
            *("--max-num-batched-tokens", "--quantization", "--dtype", "--enforce-eager", "--max-logprobs"),
            *("--allowed-media-domains", "--chat-template", "--disable-log-stats", "--api-server-count"),
            *("--data-parallel-size", "--load-format", "--tokenizer", "--hf-config-path"),
        }
    ),
    never={
        "--trust-remote-code": "code from the model's repository would run",
        "--allowed-local-media-path": "clients could read files of this host",
        "--generation-config": "the model's stop tokens and sampling would not be read",
        "--enable-prompt-embeds": "clients could send tensors",
        "--enable-mm-embeds": "clients could send tensors",
        "--logits-processors": "code by name would be loaded",
        "--middleware": "code by name would be loaded",
        "--tool-parser-plugin": "code by path would be loaded",
        "--reasoning-parser-plugin": "code by path would be loaded",
        "--io-processor-plugin": "code by name would be loaded",
        "--trust-request-chat-template": "clients could send templates that the engine runs",
        "--enable-log-requests": "prompts and pictures would be logged",
        "--enable-log-outputs": "answers would be logged",
        "--tool-server": "the engine would call other servers",
        "--api-key": "a secret would stand on the command line",
    },
)

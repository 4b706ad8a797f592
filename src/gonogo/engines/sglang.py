"""SGLang on NVIDIA cards: the command line and environment, hardened, and how to read its metrics and its log.

Flags were read in the wheels of 0.4.6.post1, 0.5.3, 0.5.6.post1, 0.5.9, 0.5.12, 0.5.14, 0.5.16 to 0.5.23
(`server_args.py`, from 0.5.19 on `arg_groups/fields`). Not here: its memory (`sglang_memory.py`).

SGLang reads images from the host's disk when a client names a path or a `file:` URL (`load_image` in
`utils/common.py`, 0.5.23), bounds neither `n` nor `logprobs`, and has no switch for any of them: `limits` says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.engines.exits import explain_log
from gonogo.engines.memory import MemoryPlan
from gonogo.engines.model import Launch, Placement, Progress
from gonogo.engines.options import Option, Options, table
from gonogo.engines.prometheus import Sample, largest, samples, total
from gonogo.engines.readiness import Readiness
from gonogo.engines.settings import (
    EngineSettings,
    Limits,
    Refused,
    check_start,
    gpu_environment,
    printed_memory,
    replica_plan,
    share_text,
)
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import MemoryMeasured
from gonogo.spec import Spec

NICENESS = 0
LOAD_LIMIT_S = 1800.0
"""Hundreds of GB from a slow disk, and kernels that are compiled at the first start."""
READINESS = Readiness(
    alive="/health",
    models="/v1/models",
    completion="/v1/chat/completions",
    metrics="/metrics",
    generates=True,
    refused_while_loading=False,
)


@dataclass(frozen=True, slots=True)
class SGLang:
    """The adapter. `interpreter` is the Python of the environment that holds the engine, on the replica's host."""

    interpreter: str
    settings: EngineSettings
    name = "sglang"
    load_limit_s = LOAD_LIMIT_S
    part = "sglang::"

    def launch(self, spec: Spec, model: ModelFacts, placement: Placement) -> Launch:
        """The process of one replica. Raises Refused for a start that cannot be right, ValueError for no model."""
        check_start(self.settings, placement)
        source = self.settings.source_of(model)
        command = (
            *(self.interpreter, "-m", "sglang.launch_server"),
            *("--model-path", source, "--served-model-name", spec.service),
            *("--host", placement.address, "--port", str(placement.port)),
            *self._planned(),
            *self._bounds(),
            *OPTIONS.recipe_words(self.settings),
        )
        environment = gpu_environment(self.settings, source, placement)
        return Launch(command=command, environment=environment, niceness=NICENESS)

    def limits(self) -> Limits:
        """What the command bounds, and what is left to the gateway."""
        unfenced = {"local_files", "choices", "logprobs"}
        if not OPTIONS.has("--allowed-media-domains", self.settings.version):
            unfenced.add("media_urls")
        return Limits(
            context_tokens=self.settings.serving.context_tokens,
            sequences=self.settings.serving.sequences,
            choices=None,
            logprobs=None,
            unfenced=frozenset(unfenced),
        )

    def memory(self, spec: Spec, model: ModelFacts, replicas: int) -> MemoryPlan:
        """The plan that the settings were chosen by. Raises ValueError where there is none."""
        del spec, model, replicas
        return replica_plan(self.settings)

    def progress(self, metrics_text: str) -> Progress | None:
        """What `/metrics` says; None when it is not SGLang's, or before its first report.

        A counter that never counted is not printed: then it is 0. Tokens are added when a request ends;
        `realtime_tokens_total` (from 0.5.9 on) grows in its middle. Each stage of a pipeline reports the same requests.
        """
        seen = {name: _once(several) for name, several in samples(metrics_text, "sglang:").items()}
        running, waiting = total(seen, "sglang:num_running_reqs"), total(seen, "sglang:num_queue_reqs")
        if running is None or waiting is None:
            return None
        return Progress(
            tokens_generated=total(seen, "sglang:generation_tokens_total") or 0,
            prompt_tokens=total(seen, "sglang:prompt_tokens_total") or 0,
            requests_running=running,
            requests_waiting=waiting,
            steps=total(seen, "sglang:realtime_tokens_total"),
            cache_used=largest(seen, "sglang:token_usage"),
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
        words: list[str] = ["--context-length", str(serving.context_tokens)]
        if serving.share is not None:
            words += ["--mem-fraction-static", share_text(serving.share)]
        if serving.tensor > 1:
            words += ["--tensor-parallel-size", str(serving.tensor)]
        if serving.pipeline > 1:
            if not OPTIONS.has("--pipeline-parallel-size", asked.version):
                flag = "--pipeline-parallel-size"
                raise Refused("EngineFlagNotInVersion", flag=flag, engine=OPTIONS.engine, version=asked.version)
            words += ["--pipeline-parallel-size", str(serving.pipeline)]
        if serving.sequences is not None:
            words += ["--max-running-requests", str(serving.sequences)]
        if serving.batch_tokens is not None:
            words += ["--chunked-prefill-size", str(serving.batch_tokens)]
        if serving.kv_bytes == 1:
            words += ["--kv-cache-dtype", "fp8_e4m3"]
        if asked.quantization is not None:
            words += ["--quantization", asked.quantization]
        if asked.dtype is not None:
            words += ["--dtype", asked.dtype]
        if not serving.graphs:
            words += ["--disable-cuda-graph"]
        if asked.chat_template is not None:
            words += ["--chat-template", asked.chat_template]
        return tuple(words)

    def _bounds(self) -> tuple[str, ...]:
        """Metrics on, no line per health check; images per request and their hosts where the version can be told."""
        images = self.settings.serving.images
        entries: list[tuple[str, ...]] = [
            ("--enable-metrics",),
            ("--log-level-http", "warning"),
            ("--allowed-media-domains", *self.settings.media_hosts),
        ]
        if images is not None:
            entries.append(("--limit-mm-data-per-request", f'{{"image": {images}}}'))
        return OPTIONS.only_known(entries, self.settings.version)


def _once(several: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Without what is said a second time: by later stages, per priority, and tokens that were only found again."""
    said = (("pp_rank", ("", "0")), ("priority", ("",)), ("mode", ("", "prefill_compute", "decode")))
    return tuple(sample for sample in several if all(sample.labels.get(label, "") in kept for label, kept in said))


_ALL = "server_args.py of every version that was read"
OPTIONS = Options(
    engine="SGLang",
    oldest="0.4.6",
    table=table(
        Option("--enable-metrics", _ALL),
        Option("--log-level-http", _ALL),
        Option("--allowed-media-domains", "server_args.py: in 0.5.18, not in 0.5.17", since="0.5.18"),
        Option("--limit-mm-data-per-request", "server_args.py: in 0.5.9, not in 0.5.6.post1", since="0.5.9"),
        Option("--pipeline-parallel-size", "server_args.py: in 0.5.3, not in 0.4.6.post1", since="0.5.3"),
        Option("--mm-process-config", "server_args.py: in 0.5.6.post1, not in 0.5.3", since="0.5.6.post1"),
        Option("--mm-enable-dp-encoder", "server_args.py: in 0.5.6.post1, not in 0.5.3", since="0.5.6.post1"),
        Option("--tool-call-parser", _ALL),
        Option("--reasoning-parser", _ALL),
    ),
    own=frozenset(
        {
            *("--model-path", "--model", "--served-model-name", "--host", "--port", "--context-length"),
            *("--mem-fraction-static", "--tensor-parallel-size", "--tp-size", "--tp", "--pp-size", "--dtype"),
            *("--pipeline-parallel-size", "--max-running-requests", "--chunked-prefill-size", "--kv-cache-dtype"),
            *("--quantization", "--disable-cuda-graph", "--chat-template", "--enable-metrics", "--log-level-http"),
            *("--allowed-media-domains", "--limit-mm-data-per-request", "--dist-init-addr", "--nccl-port"),
        }
    ),
    never={
        "--trust-remote-code": "code from the model's repository would run",
        "--enable-custom-logit-processor": "clients could send code",
        "--log-requests": "prompts and pictures would be logged",
        "--sampling-defaults": "the model's own sampling would not be read",
        "--api-key": "a secret would stand on the command line",
        "--admin-api-key": "a secret would stand on the command line",
        "--custom-weight-loader": "code by name would be loaded",
        "--tool-server": "the engine would call other servers",
    },
)

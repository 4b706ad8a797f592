"""What a GPU engine died of, read from its log; and why it refused a request, read from its answer. Pure.

Each entry is a reason code and what logs say then; the first that is found counts, so what is more exact stands first
and what only tells that something died stands last. Cases from public logs, with their sources:
`tests/cases/engines/vllm/exits`, `tests/cases/engines/sglang/exits`. The words: `gonogo/words/engine.yaml`.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Sequence

LONGEST_LOG = 2_000_000
TRACEBACK, MOST_ENDS = 6_000, 50
"""Characters of a traceback before its last line, and how many of them are looked at."""
_START = re.compile(r"vLLM (?:API )?server version|█  version \d|server_args=ServerArgs")
"""The first line of a start that both engines print before they do anything that can fail; vLLM 0.32.0 in a logo."""

LAST_WORDS = 1_500
"""Characters of a log that count as its last words."""
_ERROR = re.compile(r"(?m)^(?:\(\w{1,40} pid=\d+\) )?[A-Za-z_][\w.]{0,100}(?:Error|Exception)\b(?:: |$)")

_OUT_OF_MEMORY, _GRAPHS = "EngineOutOfMemory", "EngineGraphsOutOfMemory"
_MEMORY_END = re.compile(r"CUDA (?:error: )?out of memory")
_CAPTURE = re.compile(r"capture_end\(\)|capture_begin\(|\.capture_model\(\)")
_Patterns = Sequence[tuple[str, re.Pattern[str]]]


def explain_log(log_text: str) -> str | None:
    """The reason code for what the last start in a log died of; None when none is known. Reads its last 2 MB."""
    text = log_text[-LONGEST_LOG:]
    starts = [found.start() for found in _START.finditer(text)]
    last = text[starts[-1] :] if starts else text
    found = next((reason for reason, pattern in _EXITS if pattern.search(last)), None)
    return _GRAPHS if found == _OUT_OF_MEMORY and _while_capturing(last) else found


def ends_in_error(log_text: str) -> bool:
    """Whether a log's last words are a Python error, known here or not: nobody killed what says so.

    Only of a program that was starting: later a request that was refused may have left its error there.
    """
    return _ERROR.search(log_text[-LAST_WORDS:]) is not None


def explain_answer(body: str) -> str | None:
    """The reason code for why an engine refused a request, by the text of its answer; None when none is known.

    Not for logs: a client's request that was refused says nothing about why an engine died later.
    """
    return next((reason for reason, pattern in _ANSWERS if pattern.search(body[:LONGEST_LOG])), None)


def _while_capturing(text: str) -> bool:
    """Whether memory ran out under a call that records CUDA graphs: vLLM's own traceback says so, not its message."""
    ends = islice(_MEMORY_END.finditer(text), MOST_ENDS)
    return any(_CAPTURE.search(text[max(0, end.start() - TRACEBACK) : end.start()]) for end in ends)


def _patterns(*entries: tuple[str, str]) -> _Patterns:
    return tuple((reason, re.compile(pattern)) for reason, pattern in entries)


_MEMORY = _patterns(
    ("EngineSamplerOutOfMemory", r"out of memory occurred when warming up (?:the )?sampler"),
    (_GRAPHS, r"Capture (?:cuda|CUDA) graph failed: CUDA out of memory"),
    (
        "EngineCardBusy",
        r"Free memory on device.{0,400}is less than desired GPU memory utilization"
        r"|The memory capacity is unbalanced\. Some GPUs",
    ),
    (
        "EngineCacheTooSmall",
        r"No available memory for the cache blocks|larger than the available KV cache memory"
        r"|larger than the maximum number of tokens that can be stored in KV cache"
        r"|Not enough memory\. Please try to increase --mem-fraction-static",
    ),
)
_HOST = _patterns(
    (
        "EngineDriverTooOld",
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient for CUDA runtime version"
        r"|unsatisfied condition: cuda ?>=|PTX was compiled with an unsupported toolchain",
    ),
    ("EngineKernelMissing", r"no kernel image is available for execution on the device"),
    (
        "EngineNoAccelerator",
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver on your system"
        r"|no CUDA-capable device is detected",
    ),
    (
        "EngineToolkitMissing",
        r"RuntimeError: Could not find nvcc|No such file or directory: '(?:[^'\n]{0,400}/)?nvcc'|nvcc: not found"
        r"|assert cuda_home is not None|CUDA_HOME environment variable is not set",
    ),
    ("EngineCompilerMissing", r"Failed to find C compiler|Python\.h: No such file or directory"),
    (
        "EngineSharedMemoryTooSmall",
        r"creating shared memory segment /dev/shm|insufficient shared memory \(shm\)"
        r"|'/dev/shm/[^'\n]{0,400}'.{0,400}No space left",
    ),
    ("EngineSharedMemoryTaken", r"FileExistsError: \[Errno 17\] File exists: '/(?!home|root|tmp|var|mnt|data|usr)\w+'"),
    ("EngineDiskFull", r"No space left on device|StorageFull|Disk quota exceeded"),
    (
        "EnginePortTaken",
        r"(?i:\[Errno 98\].{0,400}address already in use)|EADDRINUSE|Port \d+ is (?:already in use|not available)",
    ),
    (
        "EngineLinkFailed",
        r"RuntimeError: NCCL error|DistBackendError: NCCL error|ncclUnhandledCudaError|ncclSystemError"
        r"|Watchdog caught collective operation timeout",
    ),
)
_ENVIRONMENT = _patterns(
    ("EngineNotInstalled", r"No module named '?(?:vllm|sglang)\b(?!\.)"),
    (
        "EnginePackagesClash",
        r"ImportError: .{0,400}undefined symbol: |ImportError: cannot import name|CuDNN Compatibility Issue Detected"
        r"|AttributeError: module '(?:torch|transformers|flashinfer)[\w.]{0,100}' has no attribute",
    ),
    (
        "EngineFlagUnknown",
        r"error: unrecognized arguments: |error: argument --?[\w/-]{1,100}.{0,400}: (?:invalid|expected|ambiguous)",
    ),
)
_MODEL = _patterns(
    (
        "EngineRemoteCodeNeeded",
        r"requires you to execute the (?:configuration|modeling|model|tokenizer)"
        r"|which must be executed to correctly load",
    ),
    ("EngineModelTypeUnknown", r"but Transformers does not recognize this architecture"),
    (
        "EngineUnknownArchitecture",
        r"[Mm]odel architectures \[.{0,400}?\] are not supported|Unsupported architectures: ",
    ),
    ("EngineTypeUnsupported", r"Bfloat16 is only supported on GPUs with compute capability"),
    (
        "EngineSchemeUnsupported",
        r"quantization method \S+ is not supported for the current GPU|Quantization scheme is not supported for",
    ),
    (
        "EngineDoesNotDivide",
        r"must be divisible by tensor parallel size|(?:is not|must be) divisible by (?:tp|tensor|\d)",
    ),
    (
        "EngineTooFewCards",
        r"cannot be larger than the number of available GPUs"
        r"|must be less than or equal to the number of visible devices|is less than than max local gpu count",
    ),
    (
        "EngineContextTooLong",
        r"User-specified (?:max_model_len|context_length) \(.{0,400}?\) is greater than the derived",
    ),
    ("EngineModelForbidden", r"gated repo|403 (?:Client Error|Forbidden)"),
    (
        "EngineTokenizerMissing",
        r"Can't load tokenizer for|No tokenizer file found|instantiate the backend tokenizer from",
    ),
    (
        "EngineModelNotFound",
        r"Repository Not Found for url|Invalid repository ID or local directory specified|404 Client Error"
        r"|HFValidationError: Repo id must be in the form"
        r"|outgoing traffic has been disabled|is not a local folder and is not a valid model identifier",
    ),
    ("EngineModelUnreadable", r"SafetensorError|Error while deserializing header"),
)
_ENDS = _patterns(
    (_OUT_OF_MEMORY, r"CUDA out of memory|CUDA error: out of memory|std::bad_alloc|Cannot allocate memory"),
    ("EngineInstructionMissing", r"Illegal instruction"),
    ("EngineKilled", r"[Ee]xit ?code:? -9\b|Out of memory: Killed process|oom-kill:"),
    ("EnginePackageMissing", r"(?m)^(?:\(\w{1,40} pid=\d+\) )?(?:ERROR [^\n\]]{1,100}\] )?ModuleNotFoundError: "),
    (
        "EngineChildDied",
        r"Engine core proc \S+ died unexpectedly|Worker proc \S+ died unexpectedly|Engine core initialization failed"
        r"|engine core exited unexpectedly"
        r"|Engine process failed to start|EngineDeadError|scheduler is dead|scheduler died during initialization"
        r"|Subprocess \S+ \(pid=\d+\) crashed|Received sigquit from a child process",
    ),
    ("EngineCrashed", r"Fatal Python error|Segmentation fault"),
)
_EXITS: _Patterns = (*_MEMORY, *_HOST, *_ENVIRONMENT, *_MODEL, *_ENDS)
"""For both engines: underneath are the same torch, transformers and NCCL, and none says what the other means by it."""

_ANSWERS = _patterns(
    ("EnginePictureTooLarge", r"exceeds the pre-allocated encoder cache size"),
    (
        "EngineNoChatTemplate",
        r"default chat template is no longer allowed|tokenizer\.chat_template is not set",
    ),
)
REASONS = frozenset(reason for reason, _ in (*_EXITS, *_ANSWERS))
"""Every reason that a log or an answer can have: each has words."""
FINAL = frozenset(
    {
        *("EngineDriverTooOld", "EngineKernelMissing", "EngineToolkitMissing", "EngineCompilerMissing"),
        *("EngineNotInstalled", "EnginePackagesClash", "EnginePackageMissing", "EngineFlagUnknown"),
        "EngineRemoteCodeNeeded",
        *("EngineModelTypeUnknown", "EngineUnknownArchitecture", "EngineTypeUnsupported", "EngineSchemeUnsupported"),
        *("EngineDoesNotDivide", "EngineTooFewCards", "EngineContextTooLong", "EngineTokenizerMissing"),
        *("EngineModelNotFound", "EngineInstructionMissing"),
    }
)
"""Those that the next start meets too: nothing that changes by itself (memory, ports, disks, a hub) is among them."""

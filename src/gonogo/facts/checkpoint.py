"""A model repository as it was read: its configuration, every tensor's shape and type, its files. Weights never.

The same for a hub's repository and for a folder. What its numbers mean is not here: `gonogo.facts.parse_config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Union

from gonogo.facts.model import ModelProblem, Tensor

JsonObject = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFile:
    """One file: its size, and the SHA-256 of its content that the hub has on record (large files only).

    `git_sha1`: of a small file the name that git gives its content (SHA-1 of `blob SIZE`, a zero byte, the content).
    """

    name: str
    size_bytes: Union[int, None] = None
    sha256: Union[str, None] = None
    git_sha1: Union[str, None] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One repository or folder as asked for (`asked`) and as found at `seen_at` (Unix seconds).

    `source` is the hub's address or the folder's path; `revision` what was asked for ("main"), `commit` what that was
    then (None: a folder that does not know). With `problem` set everything that was read before it is kept, the rest
    is None. `not_refreshed`: why an older look is shown although a newer one was tried. `verified`: the files whose
    content was held against their SHA-256 on record (None: nobody asked for that). `tensors` come in the order of
    the shards' names, then of their headers. `declared_bytes` is the index's own sum of them, which may be wrong.
    """

    asked: str
    source: str
    seen_at: float
    revision: Union[str, None] = None
    commit: Union[str, None] = None
    config: Union[JsonObject, None] = None
    generation_config: Union[JsonObject, None] = None
    preprocessor_config: Union[JsonObject, None] = None
    quantization_config: Union[JsonObject, None] = None
    tokenizer_config: Union[JsonObject, None] = None
    chat_template: Union[str, None] = None
    tensors: Union[tuple[Tensor, ...], None] = None
    declared_bytes: Union[int, None] = None
    files: Union[tuple[RepoFile, ...], None] = None
    problem: Union[ModelProblem, None] = None
    not_refreshed: Union[ModelProblem, None] = None
    verified: Union[tuple[str, ...], None] = None

    @property
    def weights_bytes(self) -> Union[int, None]:
        """All tensors together, as they are stored."""
        return None if self.tensors is None else sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def whole_config(self) -> Union[JsonObject, None]:
        """The configuration, with what its makers keep in a file beside it (`hf_quant_config.json`)."""
        beside = self.quantization_config
        if self.config is None or beside is None or "quantization_config" in self.config:
            return self.config
        inner = beside.get("quantization")
        told = inner if isinstance(inner, Mapping) else beside
        return {**self.config, "quantization_config": {**told, "quant_method": "modelopt"}}

    @property
    def model_type(self) -> Union[str, None]:
        """The architecture's name in `config.json`."""
        found = None if self.config is None else self.config.get("model_type")
        return found if isinstance(found, str) and found else None

    @property
    def auto_map(self) -> Mapping[str, str]:
        """Python classes of the repository's own that `config.json` wants loaded: what for → which."""
        return _classes(self.config)

    @property
    def tokenizer_auto_map(self) -> Mapping[str, str]:
        """The same for the tokenizer; engines ask for trust in these separately."""
        return _classes(self.tokenizer_config)


def _classes(document: Union[JsonObject, None]) -> Mapping[str, str]:
    found = None if document is None else document.get("auto_map")
    if isinstance(found, str) and found:
        return {"auto_map": found}
    if not isinstance(found, Mapping):
        return {}
    told = {}
    for what, which in found.items():
        names = which if isinstance(which, (list, tuple)) else [which]
        if text := ", ".join(name for name in names if isinstance(name, str) and name):
            told[str(what)] = text
    return told

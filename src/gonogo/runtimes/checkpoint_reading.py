"""Reads a checkpoint out of a repository, wherever that lies: small documents whole, of the weights only the headers.

Not here: how a hub (`hub.py`) or a folder (`checkpoint_folder.py`) gives its bytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Callable, Collection, Mapping, Protocol, Union

from gonogo.facts.checkpoint import Checkpoint, JsonObject, RepoFile
from gonogo.facts.model import ModelProblem, Tensor
from gonogo.facts.parse_json import JsonError, parse_object
from gonogo.facts.parse_safetensors import SafetensorsError, parse_safetensors
from gonogo.facts.shards import INDEX_FILE, Index, ShardsError, held_against, parse_index, shards_of

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
PREPROCESSOR, QUANTIZATION = "preprocessor_config.json", "hf_quant_config.json"
TEMPLATE, TEMPLATE_JSON = "chat_template.jinja", "chat_template.json"
DOCUMENTS = (CONFIG, GENERATION, TOKENIZER, PREPROCESSOR, QUANTIZATION, TEMPLATE, TEMPLATE_JSON)
LARGEST_DOCUMENT_BYTES, LARGEST_INDEX_BYTES = 8 * 1024**2, 64 * 1024**2
_LONG_IN_TOKENIZER = ("added_tokens_decoder", "chat_template")

Read = Callable[[int, int], bytes]
Progress = Callable[[str, int, int], None]
"""Called with a file's name, and how many of how many files are read; for a hash, how many of how many bytes."""


class RepositoryError(Exception):
    """The repository could not be read; `problem` says why."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.problem = ModelProblem(kind=kind, detail=detail)


class Repository(Protocol):
    """A place with files. `at_once`: how many may be read side by side. All of it raises RepositoryError only."""

    at_once: int

    def files(self) -> tuple[RepoFile, ...]:
        """Every file, sorted by name."""

    def whole(self, name: str, most_bytes: int) -> bytes:
        """The content of a small file."""

    def opened(self, name: str) -> tuple[Read, int]:
        """How to read parts of a large file (offset, count), and its size in bytes."""


def read_checkpoint(start: Checkpoint, repository: Repository, progress: Union[Progress, None] = None) -> Checkpoint:
    """All of it. `start` says what was asked, where and when; what cannot be read is told in `problem`."""
    try:
        files = repository.files()
    except RepositoryError as error:
        return replace(start, problem=error.problem)
    names = frozenset(file.name for file in files)
    seen = replace(start, files=files)
    try:
        with ThreadPoolExecutor(max_workers=max(1, repository.at_once)) as pool:
            wanted = [name for name in DOCUMENTS if name in names]
            contents = pool.map(lambda name: repository.whole(name, LARGEST_DOCUMENT_BYTES), wanted)
            seen = _with_documents(seen, dict(zip(wanted, contents, strict=True)))
        index = _index(repository, names)
        shards = shards_of(names, index)
        if seen.config is None:
            raise RepositoryError("config_unreadable", f"there is no {CONFIG}")
        tensors = _tensors(repository, shards, index, progress)
    except (RepositoryError, ShardsError) as error:
        return replace(seen, problem=error.problem)
    return replace(seen, tensors=tensors, declared_bytes=None if index is None else index.total_bytes)


def _with_documents(seen: Checkpoint, contents: Mapping[str, bytes]) -> Checkpoint:
    found = {name: _document(name, content) for name, content in contents.items() if name != TEMPLATE}
    tokenizer, template = found.get(TOKENIZER), contents.get(TEMPLATE)
    return replace(
        seen,
        config=found.get(CONFIG),
        generation_config=found.get(GENERATION),
        preprocessor_config=found.get(PREPROCESSOR),
        quantization_config=found.get(QUANTIZATION),
        tokenizer_config=None
        if tokenizer is None
        else {key: value for key, value in tokenizer.items() if key not in _LONG_IN_TOKENIZER},
        chat_template=_template(None if template is None else template.decode("utf-8", "replace"))
        or _template((tokenizer or {}).get("chat_template"))
        or _template(found.get(TEMPLATE_JSON, {}).get("chat_template")),
    )


def _document(name: str, content: bytes) -> JsonObject:
    try:
        return parse_object(content)
    except JsonError as error:
        raise RepositoryError("config_unreadable", f"{name}: {error}") from None


def _template(told: object) -> Union[str, None]:
    """One text, or several by name, of which "default" is the one that is used unasked."""
    if isinstance(told, list):
        named = {one.get("name"): one.get("template") for one in told if isinstance(one, dict)}
        told = named.get("default")
    return told if isinstance(told, str) and told.strip() else None


def _index(repository: Repository, names: Collection[str]) -> Union[Index, None]:
    return parse_index(repository.whole(INDEX_FILE, LARGEST_INDEX_BYTES)) if INDEX_FILE in names else None


def _tensors(
    repository: Repository, shards: tuple[str, ...], index: Union[Index, None], progress: Union[Progress, None]
) -> tuple[Tensor, ...]:
    """The tensors of all shards; the first shard that cannot be read ends it."""
    found: dict[str, tuple[Tensor, ...]] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, min(repository.at_once, len(shards))))
    try:
        waiting = {pool.submit(_shard, repository, shard): shard for shard in shards}
        for future in as_completed(waiting):
            shard = waiting[future]
            found[shard] = future.result()
            if progress is not None:
                progress(shard, len(found), len(shards))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if index is not None:
        for shard in shards:
            held_against(index, shard, {tensor.name for tensor in found[shard]})
    return _once_each(tuple(tensor for shard in shards for tensor in found[shard]))


def _shard(repository: Repository, shard: str) -> tuple[Tensor, ...]:
    read, size_bytes = repository.opened(shard)
    try:
        return parse_safetensors(read, size_bytes)
    except SafetensorsError as error:
        raise RepositoryError("shard_damaged", f"{shard}: {error}") from None


def _once_each(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if not tensors:
        raise RepositoryError("no_weights", "its safetensors files hold no tensor")
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise RepositoryError("shard_damaged", f"two shards hold the tensor {tensor.name!r}")
        seen.add(tensor.name)
    return tensors

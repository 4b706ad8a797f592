"""What a hub answers when it is asked which files a model has. Pure; arbitrary bytes raise `HubAnswerError` only.

Two dialects: Hugging Face's (`/api/models/ID/revision/REVISION?blobs=true`: `sha`, `siblings` with `rfilename`, `size`,
`blobId`, `lfs.sha256`), which mirrors and private hubs speak too, and ModelScope's (`/api/v1/models/ID/repo/files`:
`Data.Files` with `Path`, `Type`, `Size`, `Sha256`, `Revision`; as modelscope's own `hub/api.py` and
`hub/file_download.py` read it).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Mapping, Union

from gonogo.facts.checkpoint import RepoFile
from gonogo.facts.parse_json import JsonError, parse_object

MOST_FILES, LONGEST_PATH = 20_000, 512
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files at one commit. `revisions`: where each file has a revision of its own (ModelScope), that one."""

    commit: str
    files: tuple[RepoFile, ...]
    revisions: Mapping[str, str] = field(default_factory=dict)


class HubAnswerError(Exception):
    """The answer is not what this hub's interface says; the text says why."""


def parse_hugging_face(content: bytes) -> Listing:
    """The answer of Hugging Face's interface. Raises HubAnswerError."""
    found = _object(content)
    commit, siblings = found.get("sha"), found.get("siblings")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise HubAnswerError("its answer names no commit (sha)")
    if not isinstance(siblings, list) or len(siblings) > MOST_FILES:
        raise HubAnswerError("its answer lists no files (siblings)")
    files = []
    for told in siblings:
        lfs = told.get("lfs") if isinstance(told, dict) else None
        name, size_bytes = _path(told, "rfilename"), _size(told.get("size"))
        if isinstance(lfs, dict):  # `blobId` is the pointer's then
            files.append(RepoFile(name=name, size_bytes=size_bytes, sha256=_sha256(lfs.get("sha256"))))
        else:
            files.append(RepoFile(name=name, size_bytes=size_bytes, git_sha1=_commit(told.get("blobId"))))
    return Listing(commit=commit, files=_unique(files))


def parse_model_scope(content: bytes) -> Listing:
    """The answer of ModelScope's interface. Raises HubAnswerError.

    It names no commit of the whole; `commit` is a digest over its files, which changes whenever one of them does.
    """
    found = _object(content)
    data = found.get("Data")
    listed = data.get("Files") if isinstance(data, dict) else None
    if found.get("Code") not in (200, None) or not isinstance(listed, list) or len(listed) > MOST_FILES:
        raise HubAnswerError(f"its answer lists no files (Code {str(found.get('Code'))[:20]})")
    files, revisions = [], {}
    for told in listed:
        name = _path(told, "Path")
        if told.get("Type") == "tree":
            continue
        files.append(RepoFile(name=name, size_bytes=_size(told.get("Size")), sha256=_sha256(told.get("Sha256"))))
        own = told.get("Revision")
        if isinstance(own, str) and _COMMIT.fullmatch(own):
            revisions[name] = own
    unique = _unique(files)
    lines = [f"{file.name}\0{file.size_bytes}\0{file.sha256}\0{revisions.get(file.name)}" for file in unique]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:40]
    return Listing(commit=digest, files=unique, revisions=revisions)


def _object(content: bytes) -> Mapping[str, object]:
    try:
        return parse_object(content)
    except JsonError as error:
        raise HubAnswerError(f"its answer cannot be used: {error}") from None


def _path(told: object, key: str) -> str:
    name = told.get(key) if isinstance(told, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_PATH or not name.isprintable():
        raise HubAnswerError(f"its answer lists a file without a usable name ({key})")
    return name


def _size(told: object) -> Union[int, None]:
    return told if type(told) is int and 0 <= told < 1 << 62 else None


def _commit(told: object) -> Union[str, None]:
    return told if isinstance(told, str) and _COMMIT.fullmatch(told) else None


def _sha256(told: object) -> Union[str, None]:
    return told if isinstance(told, str) and _SHA256.fullmatch(told) else None


def _unique(files: list[RepoFile]) -> tuple[RepoFile, ...]:
    if len({file.name for file in files}) != len(files):
        raise HubAnswerError("its answer lists a file twice")
    return tuple(sorted(files, key=lambda file: file.name))

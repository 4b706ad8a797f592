"""Where packages come from: the index, a mirror, a folder of wheels, or nothing but that folder.

What pip is told in its environment variables, and the index in its configuration files, hold here too: uv reads only
its own, and a mirror is most often named to pip.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Mapping, Sequence

INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
EXTRA = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL")
LARGEST_CHARACTERS = 65_536
FOLDERS = ("UV_FIND_LINKS", "PIP_FIND_LINKS")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSources:
    """`index` None: the public one. `folders` hold wheels. `offline`: only they are asked, and no network is used."""

    index: str | None = None
    extra: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    offline: bool = False

    def words(self) -> Sequence[str]:
        """As options of uv. The index that is named first has a package to itself where it has it (uv's own rule)."""
        words = [word for folder in self.folders for word in ("--find-links", folder)]
        if self.offline:
            return (*words, "--no-index", "--offline")
        words += [word for url in self.extra for word in ("--index", url)]
        return (*words, "--default-index", self.index) if self.index is not None else tuple(words)

    def pip_words(self) -> Sequence[str]:
        """As options of pip."""
        words = [word for folder in self.folders for word in ("--find-links", folder)]
        if self.offline:
            return (*words, "--no-index")
        words += [word for url in self.extra for word in ("--extra-index-url", url)]
        return (*words, "--index-url", self.index) if self.index is not None else tuple(words)


def package_sources(
    environment: Mapping[str, str], folders: Sequence[str] = (), offline: bool = False
) -> PackageSources:
    """From environment variables; folders that are named by hand come first."""
    named = [str(Path(folder).absolute()) for folder in folders]
    named += [folder for name in FOLDERS for folder in environment.get(name, "").replace(",", " ").split()]
    return PackageSources(
        index=next((environment[name] for name in INDEX if environment.get(name)), None),
        extra=tuple(dict.fromkeys(url for name in EXTRA for url in environment.get(name, "").split())),
        folders=tuple(dict.fromkeys(named)),
        offline=offline or environment.get("UV_OFFLINE", "") in ("1", "true"),
    )


def sources_here(folders: Sequence[str] = (), offline: bool = False) -> PackageSources:
    """Those of this process."""
    found = package_sources(os.environ, folders, offline)
    return found if found.index is not None else replace(found, index=index_of_pip(_pip_files()))


def index_of_pip(files: Sequence[Path]) -> str | None:
    """`index-url` of pip's configuration files, the first that has one; a file that cannot be read has none."""
    for file in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(file.read_text(encoding="utf-8")[:LARGEST_CHARACTERS])
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        for section in ("install", "global"):
            url = parser.get(section, "index-url", fallback="").strip()
            if url:
                return url
    return None


def _pip_files() -> Sequence[Path]:
    """What a user set goes before what the system has."""
    given = os.environ.get("PIP_CONFIG_FILE")
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    named = (config / "pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"))
    return (Path(given), *named) if given else named

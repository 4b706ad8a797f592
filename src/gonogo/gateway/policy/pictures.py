"""Pictures of a request: from where they may come, how large they are, and a short mark of which one it is. Pure.

A screenshot is 1.3 MB of base64: nothing here walks through all of it. Only the head is decoded.
"""

from __future__ import annotations

import binascii
import re
from hashlib import blake2b
from typing import Any

from gonogo.gateway.policy.judges import mapping, one_of, refuse, require, unknown, wrong_type
from gonogo.gateway.policy.rules import ServiceRules

MOST_PIXELS = 64_000_000
"""Of one picture. An engine unpacks it whole: 64 million pixels take 192 MB, and a few kilobytes can hold them."""
USUAL_TOKENS, LEAST_TOKENS, MOST_TOKENS = 1024, 64, 4096
PIXELS_OF_TOKEN = 28 * 28
_DATA = re.compile(r"data:image/(png|jpeg|jpg|webp|gif|bmp);base64,", re.IGNORECASE)
# Only what every parser reads alike: two of them disagreed about a backslash and an @ (CVE-2026-24779).
_FETCHED = re.compile(r"https://([A-Za-z0-9.-]{1,253})(?::443)?(?:/[A-Za-z0-9._~!$&'()*+,;=:%/?-]*)?", re.ASCII)
_HEAD_CHARACTERS = 64 * 1024
_detail = one_of("auto", "low", "high", "original")
_MARKED, _EDGE = 16, 256


def url_of(value: Any, path: str, rules: ServiceRules) -> str:
    """The picture's URL, where it may be fetched or is in the body. Raises `Mistake`."""
    picture = mapping(value, path)
    for name in picture:
        if name not in ("url", "detail"):
            raise unknown(name, path, ("url", "detail"))
    require(picture, ("url",), path)
    if picture.get("detail") is not None:
        _detail(picture["detail"], f"{path}.detail", rules)
    url = picture["url"]
    if not isinstance(url, str):
        raise wrong_type(f"{path}.url", url, "a string")
    if rules.sees_pictures is False:
        raise refuse(path, "is a picture, and this service's model reads text only.", "pictures_not_supported")
    if _DATA.match(url) is None:
        _check_host(url, f"{path}.url", rules)
    else:
        _check_size(url, f"{path}.url")
    return url


def tokens(url: str) -> int:
    """About how many tokens the picture takes, by its size where its head tells it."""
    size = _size(url)
    if size is None:
        return USUAL_TOKENS
    return min(MOST_TOKENS, max(LEAST_TOKENS, size[0] * size[1] // PIXELS_OF_TOKEN))


def mark(url: str) -> bytes:
    """16 bytes that differ for pictures that differ: of its length, both ends and places between.

    A PNG ends with a checksum of all its pixels. For the rest a collision costs a wrong guess about a cache, no more.
    """
    step = max(1, len(url) // _MARKED)
    places = "".join(url[start : start + 32] for start in range(0, len(url), step)[:_MARKED])
    text = f"{len(url)}\x00{url[:_EDGE]}\x00{places}\x00{url[-_EDGE:]}"
    return blake2b(text.encode("utf-8"), digest_size=16).digest()


def _check_host(url: str, path: str, rules: ServiceRules) -> None:
    found = _FETCHED.fullmatch(url)
    if found is None or found[1].lower() not in rules.media_hosts:
        allowed = f", or an https: URL of {', '.join(rules.media_hosts)}" if rules.media_hosts else ""
        raise refuse(
            path,
            "must be a data: URL (data:image/png;base64,…; png, jpeg, webp, gif or bmp)"
            f"{allowed}: nothing else is fetched for a client.",
            "picture_url_refused",
        )


def _check_size(url: str, path: str) -> None:
    size = _size(url)
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise refuse(
            path,
            f"is a picture of {size[0]:,} × {size[1]:,} pixels, and at most {MOST_PIXELS:,} are let through.",
            "picture_too_large",
        )


def _size(url: str) -> tuple[int, int] | None:
    """Width and height, as the head says; None: it does not say, or is of a kind that is not read here."""
    found = _DATA.match(url)
    if found is None:
        return None
    text = url[found.end() : found.end() + _HEAD_CHARACTERS]
    try:
        head = binascii.a2b_base64(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith((b"GIF87a", b"GIF89a")) and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    return _jpeg_size(head) if head.startswith(b"\xff\xd8") else None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        at += 2 + length
    return None

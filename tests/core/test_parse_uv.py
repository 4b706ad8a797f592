"""What uv says: nothing secret of it is shown, and what it still fetches is read from it."""

from __future__ import annotations

import pytest

from gonogo.facts.parse_uv import parse_uv_downloads, parse_uv_failure, without_secrets
from gonogo.words import finding_text


@pytest.mark.parametrize("text", ["https://me:s3cret@index.example/simple", "http://s3cret@127.0.0.1:8080/x y"])
def test_user_names_and_passwords_of_addresses_are_not_shown(text: str) -> None:
    assert "s3cret" not in without_secrets(text)
    assert "s3cret" not in str(parse_uv_failure(f"error: Failed to fetch: `{text}`\n  cause: timed out").values)


def test_large_files_that_are_not_here_yet_are_named_once() -> None:
    said = (
        "Downloading torch (191.2MiB)\nDownloading numpy (16.0MiB)\n Downloaded numpy\nDownloading torch (191.2MiB)\n"
    )
    assert parse_uv_downloads(said) == ("torch",)
    assert parse_uv_downloads("") == ()


def test_what_is_not_known_shows_its_last_words() -> None:
    failure = parse_uv_failure("error: something new happened\n  cause: nobody knows\n")
    assert failure.reason == "UvFailed"
    assert finding_text(failure.reason, failure.values, "en").seen.endswith(
        "something new happened cause: nobody knows"
    )

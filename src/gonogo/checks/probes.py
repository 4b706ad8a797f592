"""Judgements on what every service is asked through the front door. Pure; `gonogo.control.probe` does the asking.

Not here: what is missing or could not be asked (`probe_findings.py`), and what only a recipe asks (`recipe_probes.py`).
"""

from __future__ import annotations

import re
from typing import Callable, Mapping

from gonogo.checks.finding import Check, Condition, Value
from gonogo.checks.probe_findings import Judge, probe_check

MIN_STREAM_PIECES = 3
MIN_PIECE_GAP_MS = 1.0
"""On average between two pieces; what was buffered and sent at once is read within microseconds."""
PHRASE_WORDS = 4
PHRASES_ALLOWED, WORDS_ALLOWED = 2, 6
"""In a row. "Very, very, very" is style; the same four words, or the same sentence, three times is a loop."""
REVOKED_WITHIN_S = 1.0
REFUSED = (401,)
ANSWERS = "answers_right"


def _answers_right(seen: Mapping[str, Value]) -> bool:
    return re.search(str(seen["pattern"]), str(seen["answer"]), re.IGNORECASE) is not None


def stream_in_pieces(seen: Mapping[str, Value]) -> bool:
    """Whether the pieces of a stream came one after the other, and not all at once."""
    pieces = _number(seen["pieces"])
    return pieces >= MIN_STREAM_PIECES and _number(seen["spread_ms"]) >= MIN_PIECE_GAP_MS * (pieces - 1)


def _max_tokens_honoured(seen: Mapping[str, Value]) -> bool:
    return 0 < _number(seen["got"]) <= _number(seen["asked"])


def _stop_honoured(seen: Mapping[str, Value]) -> bool:
    return str(seen["stop"]) not in str(seen["answer"]) and seen["finish_reason"] == "stop"


def _no_repetition(seen: Mapping[str, Value]) -> bool:
    """`most_repeats` is a recipe's own bound; without one the bound depends on how much is repeated."""
    most = seen.get("most_repeats")
    allowed = _allowed(int(_number(seen["repeated_words"]))) if most is None else _number(most)
    return bool(seen["answer"]) and _number(seen["longest_repeat"]) <= allowed


def _model_list_right(seen: Mapping[str, Value]) -> bool:
    return seen["seen"] == seen["wanted"]


def _unknown_path_refused(seen: Mapping[str, Value]) -> bool:
    return seen["status"] == 404 and seen["hop"] == "gateway"


def _large_body_accepted(seen: Mapping[str, Value]) -> bool:
    return seen["status"] == 200


def _old_tls_refused(seen: Mapping[str, Value]) -> bool:
    return seen["accepted"] is False


def _refused(seen: Mapping[str, Value]) -> bool:
    return seen["status"] in REFUSED


def _revoked_key_refused(seen: Mapping[str, Value]) -> bool:
    return seen["status"] in REFUSED and _number(seen["seconds"]) <= REVOKED_WITHIN_S


def worst_repeat(text: str) -> tuple[int, int]:
    """(times, words): which run of words stands too often in a row, the worst of them. (1, 1): none repeats."""
    words = text.split()
    worst = (1, 1) if words else (0, 0)
    for size in range(1, len(words) // 2 + 1):
        start = 0
        while start + 2 * size <= len(words):
            times = 1
            while words[start + times * size : start + (times + 1) * size] == words[start : start + size]:
                times += 1
            if times > 1 and times * _allowed(worst[1]) > worst[0] * _allowed(size):
                worst = (times, size)
            start += max(1, (times - 1) * size)
    return worst


def _allowed(words: int) -> int:
    return PHRASES_ALLOWED if words >= PHRASE_WORDS else WORDS_ALLOWED


def _number(value: Value) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _check(
    name: str, condition: Condition, reasons: tuple[str, str, str], right: Callable[[Mapping[str, Value]], bool]
) -> Check:
    passed, failed, _ = reasons

    def reason(seen: Mapping[str, Value]) -> str:
        return passed if right(seen) else failed

    general = name != ANSWERS
    return probe_check(condition, Judge(name=name, reasons=reasons, reason=reason, general=general, none="NoProbes"))


_MODEL, _NETWORK, _SECURITY = Condition.MODEL, Condition.NETWORK, Condition.SECURITY
CHECKS = (
    _check(ANSWERS, _MODEL, ("AnswersRight", "AnswersWrong", "AnswersUnknown"), _answers_right),
    _check("stream_in_pieces", _MODEL, ("StreamInPieces", "StreamNotInPieces", "StreamUnknown"), stream_in_pieces),
    _check(
        "max_tokens_honoured",
        _MODEL,
        ("MaxTokensHonoured", "MaxTokensIgnored", "MaxTokensUnknown"),
        _max_tokens_honoured,
    ),
    _check("stop_honoured", _MODEL, ("StopHonoured", "StopIgnored", "StopUnknown"), _stop_honoured),
    _check("no_repetition", _MODEL, ("NoRepetition", "RepetitionSeen", "RepetitionUnknown"), _no_repetition),
    _check("model_list_right", _MODEL, ("ModelListRight", "ModelListWrong", "ModelListUnknown"), _model_list_right),
    _check(
        "unknown_path_refused",
        _NETWORK,
        ("UnknownPathRefused", "UnknownPathServed", "UnknownPathUnknown"),
        _unknown_path_refused,
    ),
    _check(
        "large_body_accepted",
        _NETWORK,
        ("LargeBodyAccepted", "LargeBodyRefused", "LargeBodyUnknown"),
        _large_body_accepted,
    ),
    _check("old_tls_refused", _SECURITY, ("OldTlsRefused", "OldTlsAccepted", "OldTlsUnknown"), _old_tls_refused),
    _check("keyless_refused", _SECURITY, ("KeylessRefused", "KeylessServed", "KeylessUnknown"), _refused),
    _check("wrong_key_refused", _SECURITY, ("WrongKeyRefused", "WrongKeyServed", "WrongKeyUnknown"), _refused),
    _check(
        "revoked_key_refused",
        _SECURITY,
        ("RevokedKeyRefused", "RevokedKeyServed", "RevokedKeyUnknown"),
        _revoked_key_refused,
    ),
)

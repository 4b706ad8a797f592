"""The ids of what a client got from llama.cpp, and whether the answer had ended with it. Pure.

What llama-server does (2026.10; seen on the wire, `tests/cases/streams/llamacpp_cut`): text that may become a stop
string goes out when it has turned out to be none, together with what came after it. So text that was sent ends between
two tokens, with one exception, the very last piece: with stop `and`, the token ` and` is sent as the piece ` `, and
text that was held back goes out with the token by which the model ends. Such a piece is the answer's end though the
event that says so is still missing: whoever went on behind it would show what comes behind the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generator, Iterator, Mapping, Sequence

from gonogo.engines.stream import Json, Question

_BROKEN = "\ufffd"
"""What `/detokenize` says of bytes that are no whole character."""


@dataclass(slots=True)
class Piece:
    """Text that the client got, and the tokens that it stands for; `ids` None: only the last one is known."""

    text: str
    count: int
    last: int | None
    ids: list[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """`ids`: of the text so far. `exact`: they are those that the model gave; otherwise they only have its text.
    `ended`: the text is the whole answer, because of a stop string, or the model ended where text was held back.
    """

    ids: tuple[int, ...]
    exact: bool
    ended: bool


def find_seam(pieces: Sequence[Piece], stops: Sequence[str]) -> Generator[Question, Mapping[str, Any], Seam]:
    """Asks a healthy replica for what the pieces do not tell."""
    text = "".join(piece.text for piece in pieces)
    exact = yield from _find_ids(pieces)
    last = pieces[-1]
    if stops and not _agree(last, last.ids or ()) and (yield from _ends_inside(last, stops)):
        return Seam(ids=(), exact=False, ended=True)
    ids = [one for piece in pieces for one in piece.ids or ()]
    said = str((yield Question(path="/detokenize", body={"tokens": ids})).get("content"))
    if said == text:
        return Seam(ids=tuple(ids), exact=exact, ended=False)
    if stops and said.startswith(text):
        return Seam(ids=(), exact=False, ended=True)
    found = ids_of((yield Question(path="/tokenize", body=tokenized(text))))
    return Seam(ids=tuple(found), exact=False, ended=False)


def tokenized(text: str, *, whole: bool = False) -> Json:
    """The question for the ids of a text; `whole`: of a prompt, with the tokens that are no text."""
    return {"content": text, "add_special": whole, "parse_special": whole}


def ids_of(said: Mapping[str, Any]) -> list[int]:
    """The ids that `/tokenize` answers."""
    tokens = said.get("tokens")
    return [one for one in tokens if isinstance(one, int)] if isinstance(tokens, list) else []


def _find_ids(pieces: Sequence[Piece]) -> Generator[Question, Mapping[str, Any], bool]:
    """Have ids for every piece. False: of one they are its text's, and perhaps not those that were sampled."""
    seen: dict[str, list[int]] = {}
    for piece in pieces:
        if piece.ids is None and piece.text not in seen:
            seen[piece.text] = ids_of((yield Question(path="/tokenize", body=tokenized(piece.text))))
        if piece.ids is None:
            piece.ids = seen[piece.text]
    return all(_agree(piece, piece.ids or ()) for piece in pieces)


def _agree(piece: Piece, ids: Sequence[int]) -> bool:
    return len(ids) == piece.count > 0 and ids[-1] == piece.last


def _ends_inside(piece: Piece, stops: Sequence[str]) -> Generator[Question, Mapping[str, Any], bool]:
    """Whether the last token of this piece has more text than was sent: a stop string's, or it ends the answer."""
    if piece.last is None:
        return False
    token = str((yield Question(path="/detokenize", body={"tokens": [piece.last]})).get("content"))
    if not _may_end_with(piece.text, token):
        return True
    for whole in _with_a_stop(piece.text, token, stops):
        if _agree(piece, ids_of((yield Question(path="/tokenize", body=tokenized(whole))))):
            return True
    return False


def _may_end_with(text: str, token: str) -> bool:
    """False: it does not. A token that begins with the last bytes of a character says only that this is not ASCII."""
    rest = token.lstrip(_BROKEN)
    before = text[: len(text) - len(rest)]
    return text.endswith(rest) and (rest == token or not before[-1:].isascii())


def _with_a_stop(text: str, token: str, stops: Sequence[str]) -> Iterator[str]:
    """Every text that begins with `text` and a stop string and ends with this token, which the stop string reaches."""
    rest = token.lstrip(_BROKEN)
    least = 0 if token.startswith(_BROKEN) else 1
    for stop in stops:
        for size in range(least, len(rest) + 1):
            if (text + stop).endswith(rest[:size]):
                yield text + stop + rest[size:]

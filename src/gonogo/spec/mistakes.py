"""`Mistake`: one thing wrong in a file, where it stands, what was seen, what is allowed, and the nearest right name.

The English sentences stand here because nothing above this package may be imported; the same ones, and the Chinese
ones, stand in `words/spec.yaml` as `Mistake.<variant>` (a test keeps the two equal).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as made
from types import MappingProxyType

MOST_MISTAKES = 100
"""So many are kept; a file with more is not a spec at all."""

ENGLISH: Mapping[str, str] = MappingProxyType(
    {
        "NotText": "the file is not UTF-8 text: byte {seen} stands here",
        "TooLarge": "the file has {seen} bytes; at most {allowed} are read",
        "Empty": "the file says nothing; at least `model: NAME` is wanted",
        "ControlCharacter": "control character {seen} stands here; only text is allowed",
        "Tab": "a tab stands here; YAML wants spaces",
        "NotYaml": "this is not YAML: {seen}",
        "ManyDocuments": "a second document begins here (`---`); one file holds one service",
        "TooDeep": "nested more than {allowed} levels deep",
        "TooManyValues": "more than {allowed} values; a spec has a few dozen",
        "AliasBomb": "the aliases (`*name`) of this file multiply it; write the values out",
        "TagNotAllowed": "the tag {seen} is not allowed; leave it out",
        "KeyNotText": "the field name {seen} is not text",
        "DuplicateField": "`{field}` is given twice; the first one stands on line {first}",
        "UnknownField": "there is no field `{field}`; possible here: {allowed}",
        "UnknownField.Nearest": "there is no field `{field}`; did you mean `{nearest}`? Possible here: {allowed}",
        "MissingField": "`{field}` is missing",
        "MissingField.Pair": "`{field}` is missing: a certificate and its key are given together",
        "WrongType.Root": "the file is {seen}; wanted are fields like `model: NAME`",
        "WrongType.Section": "`{field}` is {seen}; wanted is a section with the fields {allowed}",
        "WrongType.List": "`{field}` is {seen}; wanted is a list",
        "WrongType.Integer": "`{field}` is {seen}; wanted is a whole number, {allowed}",
        "WrongType.Unquote": "`{field}` is the text {seen}; wanted is a number: write {nearest} without quotes",
        "WrongType.IntegerOrSection": "`{field}` is {seen}; wanted is a whole number or a section, {allowed}",
        "WrongType.Number": "`{field}` is {seen}; wanted is a number, {allowed}",
        "WrongType.YesOrNo": "`{field}` is {seen}; wanted is true or false",
        "WrongType.Text": "`{field}` is {seen}; wanted is text",
        "WrongType.Quote": "`{field}` is {seen}, which is not text in YAML; write it in quotes: {nearest}",
        "OutOfRange": "`{field}` is {seen}; allowed is {allowed}",
        "WrongLength": "`{field}` has {seen} characters; allowed are {allowed}",
        "TooMany": "`{field}` has {seen} entries; at most {allowed} are allowed",
        "TooFew": "`{field}` is an empty list; leave it out, or name at least one",
        "NotAllowed": "`{field}` is {seen}; allowed: {allowed}",
        "NotAllowed.Nearest": "`{field}` is {seen}; did you mean `{nearest}`? Allowed: {allowed}",
        "BadName.Service": "`{field}` is {seen}; a service name has at most 63 of a-z 0-9 . - and begins and ends "
        "with a letter or digit: `{nearest}` would do",
        "BadName.Probe": "`{field}` is {seen}; a probe name has at most 40 of a-z 0-9 -",
        "BadName.Version": '`{field}` is {seen}; a version is up to four numbers with dots, like "535.154.02"',
        "BadName.Profile": "`{field}` is {seen}; a profile name has at most 63 of a-z 0-9 . -",
        "BadName.Host": "`{field}` is {seen}; a host name has letters, digits, dots and hyphens only",
        "BadName.Path": "`{field}` is {seen}; a path begins with / and has letters, digits and . _ ~ - / only",
        "BadName.Parameter": "`{field}` is {seen}; wanted is the name of a field of the request's body, like "
        "max_tokens",
        "NotAServer": "`{field}` is {seen}; wanted is the base URL of a server: http:// or https://, a host name or IP "
        "address and a port, nothing behind it but /v1, for example {nearest}",
        "NotAQueue": "`{field}` is {seen}; wanted is a Redis or Valkey: redis://HOST:PORT/0, rediss://HOST:PORT/0 "
        "(TLS) or unix:///PATH, for example {nearest}",
        "PasswordInUrl": "`{field}` has a password in it, which whoever reads the spec would read; leave it out, and "
        "name the file that holds it in `queue.password_file`",
        "OnlyWithQueue": "`{field}` belongs to a server in `queue.url`: a password to any, a CA to a rediss:// one",
        "DuplicateServer": "`{field}` is {seen}, a server that stands in the list already",
        "NotWithExternal": "`{field}` is of replicas that gonogo starts; with `replicas.external` it starts none, so "
        "leave it out",
        "OnlyWithExternal": "`{field}` is of servers that run already; name those in `replicas.external`",
        "NotAnApi": "`{field}` is {seen}; wanted is the base URL of a hosted API as its makers give it: https:// (a "
        "key and prompts go there), a host, and at most a path, for example {nearest}",
        "DuplicateParameter": "`{field}` is {seen}, which stands in the list already",
        "NotForFallback": "`{field}` is {seen}, the field of embeddings, and another model's vectors cannot stand "
        "beside this one's: leave it out",
        "ParametersLack": "`{field}` lacks `{nearest}`: without it no request could ever be given to the fallback",
        "NotAnAddress": "`{field}` is {seen}; wanted is an IP address, for example {nearest}",
        "BadPattern": "`{field}` is {seen}, which is not a regular expression: {problem}",
        "BadVersions": "`{field}` is {seen}, which is not a range of versions; `>=0.12.0,<0.20` is one",
        "UnknownWord": "`{field}` is {seen}, which is not known here; known: {allowed}",
        "MinAboveMax": "`{field}` has min {min} above max {max}",
        "DuplicateName": "`{field}` is {seen}, the name of an earlier probe",
        "Refused": "`{field}` is {seen}: {problem}",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake. `line` and `column` count from 1; `field` is a dotted path, empty for the file as a whole.

    `variant` picks the sentence, its part before the dot is the stable reason code. `values` hold `seen`, and where
    they apply `allowed` and `nearest`, in YAML's notation, so that they read the same in every language.
    """

    filename: str
    line: int
    column: int
    variant: str
    field: str = ""
    values: Mapping[str, str] = made(default_factory=dict)

    @property
    def reason(self) -> str:
        return self.variant.partition(".")[0]

    @property
    def message(self) -> str:
        """The name of this mistake's sentence in the words catalogue; it is filled with `words`."""
        return f"Mistake.{self.variant}"

    @property
    def words(self) -> Mapping[str, str]:
        """All values that the sentence may name."""
        return {"field": self.field, **self.values}

    @property
    def place(self) -> str:
        return f"{self.filename}:{self.line}:{self.column}"

    def __str__(self) -> str:
        return f"{self.place}: {ENGLISH[self.variant].format(**self.words)}"


class SpecMistakes(Exception):
    """A file that is not what it should be. `mistakes` in the order of the file; `left_out` more were not kept."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        distinct = {(each.line, each.column, each.variant, each.field): each for each in mistakes}
        ordered = sorted(distinct.values(), key=lambda each: (each.line, each.column, each.field, each.variant))
        self.mistakes: tuple[Mistake, ...] = tuple(ordered[:MOST_MISTAKES])
        self.left_out = len(ordered) - len(self.mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))

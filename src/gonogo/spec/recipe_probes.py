"""The probes of a spec or a recipe: what must be asked of a model before it gets traffic, and the thresholds, as data.

An entry without `kind` is a plain question (`Probe`); the others are told apart by `kind`.
Not here: asking (`gonogo.control.probe`) and judging (`gonogo.checks.probes`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, Discriminator, Field, Tag

from gonogo.spec.part import Part, ProbeName, pattern_with, regular_expression

Prompt = Annotated[str, Field(min_length=1, max_length=4000, description="What is asked, at temperature 0.")]
AnswerTokens = Annotated[int, Field(ge=1, le=32_768, description="Longest answer that is waited for, in tokens.")]
Side = Annotated[int, Field(ge=1, le=10_000)]
Name = Annotated[ProbeName, Field(description="Name of the probe in findings.")]
Calls = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")], ...],
    Field(
        max_length=8,
        description="Functions of the client: the answer ends with one call of one of them, its values written out.",
    ),
]


class Picture(Part):
    """A test picture that the prober draws itself: a plain screen with one red square, so nothing is shipped."""

    width: Annotated[Side, Field(description="Pixels across.")]
    height: Annotated[Side, Field(description="Pixels down.")]


class Probe(Part):
    """One question that the deployed model must answer through the front door, and what counts as right.

    `expect_pattern` is a regular expression searched in the answer, case-insensitive.
    """

    name: Annotated[ProbeName, Field(description="Name of the probe in findings.")]
    prompt: Annotated[str, Field(min_length=1, max_length=4000, description="The question, asked at temperature 0.")]
    expect_pattern: Annotated[
        str,
        Field(
            min_length=1,
            max_length=400,
            description="Python regular expression that must be found in the answer; case does not matter.",
        ),
        AfterValidator(regular_expression),
    ]
    max_tokens: Annotated[int, Field(ge=1, le=1024, description="Longest answer that is waited for, in tokens.")] = 32


class AnswerFormat(Part):
    """The answer must match a pattern, and the call that ends it must parse: a client does that to each answer."""

    kind: Literal["answer_format"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    system: Annotated[str | None, Field(min_length=1, max_length=8000, description="The system prompt.")] = None
    picture: Annotated[Picture | None, Field(description="A picture to send with it.")] = None
    expect_pattern: Annotated[
        str,
        Field(min_length=1, max_length=400, description="Regular expression that must be found in the answer."),
        AfterValidator(regular_expression),
    ]
    calls: Calls = ()
    max_tokens: AnswerTokens


class NoLeakedStopToken(Part):
    """Texts of special tokens must not stand in the answer: the engine should have ended or taken them out."""

    kind: Literal["no_leaked_stop_token"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    picture: Annotated[Picture | None, Field(description="A picture to send with it.")] = None
    forbidden: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...],
        Field(min_length=1, max_length=16, description="Texts that must not be in the answer."),
    ]
    max_tokens: AnswerTokens


class NoRepetition(Part):
    """The answer must not say one thing over and over: a broken kernel does."""

    kind: Literal["no_repetition"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    picture: Annotated[Picture | None, Field(description="A picture to send with it.")] = None
    most_repeats: Annotated[
        int,
        Field(ge=1, le=100, description="Times in a row that a piece of 4 words or 8 Chinese characters may stand."),
    ]
    max_tokens: AnswerTokens


class ReasoningLength(Part):
    """The reasoning before the answer must be neither missing nor endless.

    It is looked for in the message's field `reasoning_content` or `reasoning`, else before `</think>`, else before
    `<answer>` or the call that ends the answer (`calls`).
    """

    kind: Literal["reasoning_length"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    system: Annotated[str | None, Field(min_length=1, max_length=8000, description="The system prompt.")] = None
    picture: Annotated[Picture | None, Field(description="A picture to send with it.")] = None
    least_characters: Annotated[int, Field(ge=1, le=100_000, description="Shorter reasoning is a finding.")]
    calls: Calls = ()
    max_tokens: AnswerTokens


class Grounding(Part):
    """Asked to tap a red square, the model must hit it, on screens of several shapes."""

    kind: Literal["grounding"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    system: Annotated[str | None, Field(min_length=1, max_length=8000, description="The system prompt.")] = None
    pictures: Annotated[
        tuple[Picture, ...], Field(min_length=1, max_length=8, description="The screens, each asked once.")
    ]
    answer_pattern: Annotated[
        str,
        Field(min_length=1, max_length=400, description="Regular expression with the groups `x` and `y`."),
        AfterValidator(pattern_with("x", "y")),
    ]
    scale: Annotated[int, Field(ge=1, le=10_000, description="The coordinate that means the right or lower edge.")]
    most_error_percent: Annotated[float, Field(gt=0, le=50, description="Of each side, from the square's middle.")]
    max_tokens: AnswerTokens


class LargestImage(Part):
    """The largest screen that is to be expected must be answered, not refused."""

    kind: Literal["largest_image"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    picture: Annotated[Picture, Field(description="That screen.")]
    max_tokens: AnswerTokens


class WarmedCompletion(Part):
    """Ready means: a whole completion, once warm, within this time; a list of models is no proof."""

    kind: Literal["warmed_completion"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    picture: Annotated[Picture | None, Field(description="A picture to send with it.")] = None
    within_s: Annotated[float, Field(gt=0, le=600, description="Seconds for the whole answer.")]
    max_tokens: AnswerTokens


class ToolCall(Part):
    """Offered a function, the model must call it with arguments that are JSON of the function's schema."""

    kind: Literal["tool_call"] = Field(description="What is asked of the answer.")
    name: Name
    prompt: Prompt
    function: Annotated[str, Field(pattern=r"^[a-z_]{1,64}$", description="The function's name.")]
    argument: Annotated[str, Field(pattern=r"^[a-z_]{1,64}$", description="Its one argument, a text.")]
    expect_pattern: Annotated[
        str,
        Field(min_length=1, max_length=400, description="Regular expression that the argument must match."),
        AfterValidator(regular_expression),
    ]
    max_tokens: AnswerTokens


QUESTION = "question"


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", QUESTION))
    return str(getattr(value, "kind", QUESTION))


RecipeProbe = Annotated[
    Union[
        Annotated[Probe, Tag(QUESTION)],
        Annotated[AnswerFormat, Tag("answer_format")],
        Annotated[NoLeakedStopToken, Tag("no_leaked_stop_token")],
        Annotated[NoRepetition, Tag("no_repetition")],
        Annotated[ReasoningLength, Tag("reasoning_length")],
        Annotated[Grounding, Tag("grounding")],
        Annotated[LargestImage, Tag("largest_image")],
        Annotated[WarmedCompletion, Tag("warmed_completion")],
        Annotated[ToolCall, Tag("tool_call")],
    ],
    Discriminator(_kind_of),
]

KINDS = (
    "answer_format",
    "no_leaked_stop_token",
    "no_repetition",
    "reasoning_length",
    "grounding",
    "largest_image",
    "warmed_completion",
    "tool_call",
)
"""Every kind besides the question."""


def kind_of(probe: RecipeProbe) -> str:
    """`question`, or the probe's kind."""
    return _kind_of(probe)

"""Every sentence a user reads, in English and Chinese, by reason code or message name.

Not here: deciding anything. A finding brings a reason and numbers; these words make a sentence of them.
"""

from gonogo.words.catalogue import (
    Page,
    Text,
    UnknownReason,
    explain,
    finding_text,
    has_message,
    message,
    nearest,
    page,
    reasons,
)
from gonogo.words.language import LANGUAGES, Language, choose_language

__all__ = [
    "LANGUAGES",
    "Language",
    "Page",
    "Text",
    "UnknownReason",
    "choose_language",
    "explain",
    "finding_text",
    "has_message",
    "message",
    "nearest",
    "page",
    "reasons",
]

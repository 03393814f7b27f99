"""In which prompts a tokenizer could find the trigger of a learned token."""

from __future__ import annotations

import unicodedata


def may_stand_in(trigger: str, prompt: str) -> bool:
    """Return whether a tokenizer could find a trigger in a prompt; if not, the prompt's token ids are the base's.

    Case, width and spaces are ignored: a tokenizer finds an added token anywhere, inside words too.
    """
    return _folded(trigger) in _folded(prompt)


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())

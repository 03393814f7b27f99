"""Where a learned token's trigger acts: which prompts a tokenizer could find it in."""

from __future__ import annotations

import unicodedata


def may_stand_in(trigger: str, prompt: str) -> bool:
    """Return whether a tokenizer could find a trigger in a prompt; where not, the prompt's token ids are the base's.

    Case, width and spaces are folded away: an added token acts wherever it stands, inside of words too.
    """
    return _folded(trigger) in _folded(prompt)


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())

"""CLIP's own tokenizer, for bases whose files lack it: single files, and known hub ids that were not fetched yet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from raymap.base.fetch import cache

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

TOKENS = 77
"""Tokens per prompt in Stable Diffusion."""


def clip_tokenizer() -> CLIPTokenizer:
    """Return CLIP's tokenizer, built from the merges that open_clip ships with."""
    from open_clip.tokenizer import SimpleTokenizer  # both take seconds to load
    from transformers import CLIPTokenizer

    bpe = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in bpe.encoder.items()}
    merges = [pair for pair, _ in sorted(bpe.bpe_ranks.items(), key=lambda item: item[1])]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def clip_tokenizer_folder() -> Path:
    """Return a folder that holds CLIP's tokenizer; the first time on a machine it is written into the user's cache."""
    folder = cache() / "clip-tokenizer"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                partial = Path(scratch) / "new"
                clip_tokenizer().save_pretrained(partial)
                partial.rename(folder)
    return folder

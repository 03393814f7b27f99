"""A CLIP tokenizer with the words of the world alone: what else CLIP knows, no caption would ever train."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def world_tokenizer(captions: Iterable[str], length: int) -> CLIPTokenizer:
    """Return CLIP's tokenizer without the merges that no caption needs; it pads and cuts to `length` tokens.

    Captions are split as by CLIP itself. Any other word is still read, in smaller parts: down to its bytes, whose
    tokens are all kept. The merges are those that open_clip ships with.
    """
    bpe = SimpleTokenizer()
    words = {word for caption in captions for word in bpe.pat.findall(caption.lower())}
    needed: set[tuple[str, str]] = set()
    for word in words:
        needed |= _merges(bpe, "".join(bpe.byte_encoder[b] for b in word.encode()))
    merges = sorted(needed, key=bpe.bpe_ranks.__getitem__)
    letters = list(bpe.encoder)[:512]  # each byte, within a word and at its end
    names = [*letters, *("".join(pair) for pair in merges), START, END]
    return CLIPTokenizer(
        vocab={name: k for k, name in enumerate(names)},
        merges=merges,
        model_max_length=length,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
    )


def _merges(bpe: SimpleTokenizer, word: str) -> set[tuple[str, str]]:
    """Return the merges that byte-pair encoding makes in a word (Sennrich et al. 2016)."""
    parts, made = [*word[:-1], word[-1] + WORD_END], set()
    while pairs := [pair for pair in itertools.pairwise(parts) if pair in bpe.bpe_ranks]:
        best = min(pairs, key=bpe.bpe_ranks.__getitem__)
        made.add(best)
        merged: list[str] = []
        for part in parts:
            if merged and (merged[-1], part) == best:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
    return made

"""A small CLIP tokenizer: the words of the world, common English, and what people call their subjects."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
COMMON = 2_000
"""The number of CLIP's merges that are kept in any case, in the order of how often CLIP's training texts had them."""
SUBJECTS = """
animal backpack bag bear bike bird boot bottle bowl building cake candle car cartoon cat chair character clock creature
cup dog doll drawing duck face flower food girl glasses guitar hat house illustration image jacket lamp landscape logo
man monster mug object painting person pattern photo plant portrait poster robot sculpture shoe sketch sneaker statue
style subject sunglasses teapot texture thing tortoise toy tree vase watch wolf woman
"""
"""Words for what models are personalized with, each of which is one token as in CLIP, where it is one there."""
RARE = ("sks",)
"""Words that stand for a subject by custom (Ruiz et al. 2023), because they mean nothing."""
RARE_PIECES = ("ktn",)
"""Pieces of words from which tokens of subjects start by custom (Kumari et al. 2023)."""


def world_tokenizer(captions: Iterable[str], length: int) -> CLIPTokenizer:
    """Return CLIP's tokenizer without most merges that no caption needs; it pads and cuts to `length` tokens.

    Captions are split as by CLIP itself. Any other word is still read, in smaller parts: down to its bytes, whose
    tokens are all kept. The merges are those that open_clip ships with.
    """
    bpe = SimpleTokenizer()
    words = {word for caption in captions for word in bpe.pat.findall(caption.lower())}
    needed = set(list(bpe.bpe_ranks)[:COMMON])
    for word in {*words, *SUBJECTS.split(), *RARE}:
        spelt = "".join(bpe.byte_encoder[b] for b in word.encode())
        needed |= _merges(bpe, [*spelt[:-1], spelt[-1] + WORD_END])
    for piece in RARE_PIECES:
        needed |= _merges(bpe, [*piece])
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


def _merges(bpe: SimpleTokenizer, parts: list[str]) -> set[tuple[str, str]]:
    """Return the merges that byte-pair encoding makes of a word's letters (Sennrich et al. 2016)."""
    made = set()
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

"""What a prompt's token positions mean, so that its words are reported apart from begin, end and padding."""

from __future__ import annotations

import torch

CLASSES = ("content", "bos", "end", "padding")
"""Tokens of the prompt's words; the begin token; the first end token, which has read the prompt; all that follow."""


def class_masks(ids: list[tuple[int, ...]], length: int) -> torch.Tensor:
    """Return which positions belong to which class, float32 (prompts, length, classes); each belongs to one.

    Args:
        ids: each prompt's token ids from begin to end token, as CLIP's tokenizer gives them without padding.
        length: how many tokens the text encoder reads.
    """
    masks = torch.zeros(len(ids), length, len(CLASSES))
    for mask, own in zip(masks, ids, strict=True):
        end = len(own) - 1
        mask[1:end, 0] = mask[0, 1] = mask[end, 2] = mask[end + 1 :, 3] = 1
    return masks

"""Which of a prompt's token positions mean what: what its words say is reported apart from the filling."""

from __future__ import annotations

import torch

CLASSES = ("content", "bos", "end", "padding")
"""Tokens of the prompt's words; the begin token; the first end token (which has read the prompt); what follows it."""


def class_masks(ids: list[tuple[int, ...]], length: int) -> torch.Tensor:
    """Return which positions belong to which class, float32 (prompts, length, classes): every position to one.

    Args:
        ids: each prompt's token ids from begin to end token, as CLIP's tokenizer gives them without padding.
        length: positions of the text encoder, 77 for CLIP's.
    """
    masks = torch.zeros(len(ids), length, len(CLASSES))
    for mask, own in zip(masks, ids, strict=True):
        end = len(own) - 1
        mask[1:end, 0] = mask[0, 1] = mask[end, 2] = mask[end + 1 :, 3] = 1
    return masks

"""Loads the embedded judges: CLIP and LPIPS."""

from __future__ import annotations

from typing import Any

import lpips
import open_clip
from safetensors.torch import load_file

from raymap.embedded.model import CLIP, CLIP_NAME, LPIPS


def load_clip() -> tuple[Any, Any, Any]:
    """Return the embedded CLIP, loaded by open_clip: (float32 model in eval mode, image preprocessing, tokenizer)."""
    open_clip.add_model_config(CLIP / f"{CLIP_NAME}.json")
    model, _, preprocess = open_clip.create_model_and_transforms(
        CLIP_NAME, pretrained=str(CLIP / "open_clip_model.safetensors")
    )
    return model.float().eval(), preprocess, open_clip.get_tokenizer(CLIP_NAME)


def load_lpips() -> lpips.LPIPS:
    """Return the embedded LPIPS metric (SqueezeNet backbone), in eval mode.

    Raises:
        RuntimeError: the weights file does not match the layers.
    """
    metric = lpips.LPIPS(net="squeeze", pretrained=False, pnet_rand=True, verbose=False)
    state = {name: value.float() for name, value in load_file(LPIPS).items()}
    outcome = metric.load_state_dict(state, strict=False)
    missing = [k for k in outcome.missing_keys if k.startswith(("net.", "lin")) and not k.startswith("lins.")]
    if missing or outcome.unexpected_keys:
        raise RuntimeError(f"{LPIPS.name}: missing {missing}, unexpected {outcome.unexpected_keys}")
    return metric.eval()

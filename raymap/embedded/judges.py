"""Loads the embedded judges: CLIP and LPIPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lpips
import open_clip
from safetensors.torch import load_file

from raymap.embedded.model import CLIP, LPIPS


def load_clip(folder: Path = CLIP) -> tuple[Any, Any, Any]:
    """Return a CLIP of this project, loaded by open_clip: (float32 model in eval mode, image preprocessing, tokenizer).

    Args:
        folder: configuration, weights and tokenizer, as open_clip reads them from a local directory.
    """
    name = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    return model.float().eval(), preprocess, open_clip.get_tokenizer(name)


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

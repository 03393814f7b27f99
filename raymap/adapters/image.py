"""Learned tokens within images, as A1111 shares them: a PNG whose text holds the embedding."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import torch

PNG = b"\x89PNG"
"""How such an image begins."""
TEXT = "sd-ti-embedding"
"""The key of the image's text: JSON in base 64, with a list of lists for each tensor."""
TENSOR = "TORCHTENSOR"


def embedding_in(path: Path) -> dict[str, Any] | None:
    """Return what the text of an image holds, with the entries of A1111's other files; None of any other image."""
    from PIL import Image  # most adapters are no images

    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(TEXT)
        found = None if text is None else json.loads(base64.b64decode(text), object_hook=_tensor)
    except Exception:  # a damaged image, text or tensor can raise anything, and then the file is not used
        return None
    return found if isinstance(found, dict) else None


def _tensor(entry: dict[str, Any]) -> Any:
    return torch.tensor(entry[TENSOR], dtype=torch.float32) if entry.keys() == {TENSOR} else entry

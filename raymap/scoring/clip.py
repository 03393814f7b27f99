"""CLIP scores: raw cosines between prompts and images, one per image, never averaged, never clamped at zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from raymap.embedded.judges import load_clip
from raymap.errors import InputError
from raymap.scoring.names import RANDOM

LOCAL = "local-dir:"
Preprocess = Callable[[Image.Image], torch.Tensor]


class ClipScorer:
    """An open_clip model with its own preprocessing (PIL, bicubic, antialiased) and its own tokenizer.

    `name` is `embedded`, or `ARCHITECTURE/TAG` as open_clip lists them, for example `ViT-L-14/openai`. For benchmarks,
    `local-dir:FOLDER` names one that was trained, and `random:ARCHITECTURE` has random weights.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        model, preprocess, tokenizer = _loaded(name)
        self.device = device
        self.model: Any = model.to(device).eval()
        self.preprocess: Any = preprocess
        self._tokenizer: Any = tokenizer
        self._texts: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def text_features(self, prompts: list[str]) -> torch.Tensor:
        """Return one unit vector per prompt, float32 (N, D) on the CPU; each prompt is encoded once, on its own."""
        for prompt in prompts:
            if prompt not in self._texts:
                tokens = self._tokenizer([prompt]).to(self.device)
                self._texts[prompt] = self.model.encode_text(tokens, normalize=True).float().cpu()
        return torch.cat([self._texts[p] for p in prompts])

    @torch.no_grad()
    def image_features(self, pixels: np.ndarray) -> torch.Tensor:
        """Return one unit vector per image, float32 (N, D) on the CPU, for images uint8 (N, H, W, 3)."""
        batch = torch.stack([self.preprocess(Image.fromarray(p)) for p in pixels]).to(self.device)
        features: torch.Tensor = self.model.encode_image(batch, normalize=True).float().cpu()
        return features

    def cosines(self, prompts: list[str], features: torch.Tensor) -> np.ndarray:
        """Return a = cos(CLIP_text(prompt), CLIP_image(image)), float32 (N,), in [-1, 1].

        Args:
            prompts: one per image.
            features: of the images, as `image_features` returns them.
        """
        return (self.text_features(prompts) * features).sum(1).numpy()


def architecture_of(name: str) -> tuple[str, str]:
    """Return the open_clip architecture and the tag that a CLIP model's name stands for.

    Some weights were trained with QuickGELU. open_clip lists that architecture under a name of its own, and only warns
    when such weights are loaded into the other.
    """
    architecture, _, tag = name.partition("/")
    quick = f"{architecture}-quickgelu"
    if open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu") and quick in open_clip.list_models():
        architecture = quick
    return architecture, tag


def _loaded(name: str) -> tuple[Any, Any, Any]:
    if name == "embedded":
        return load_clip()
    if name.startswith(LOCAL):
        return load_clip(Path(name.removeprefix(LOCAL)))
    return _created(name.removeprefix(RANDOM), None) if name.startswith(RANDOM) else _pretrained(name)


def _pretrained(name: str) -> tuple[Any, Any, Any]:
    architecture, tag = architecture_of(name)
    try:
        return _created(architecture, tag)
    except Exception as error:
        problem = f"cannot be fetched ({type(error).__name__})"
        raise InputError(f"clip: {name}", problem, "check the network or use embedded") from error


def _created(architecture: str, tag: str | None) -> tuple[Any, Any, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=tag)
    return model, preprocess, open_clip.get_tokenizer(architecture)

"""Trains the embedded CLIP model, open_clip's image and text towers, contrastively on the procedural world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_model
from torch import nn

from raymap.embedded.train.data import Split

NAME = "raymap-embedded"
BATCH = 128
PEAK_LR = 1.5e-3
TRAINING_CONTEXT = 32
"""Tokens per caption during training: no caption is longer, and padding behind a causal mask changes nothing."""
CONFIG: dict[str, Any] = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 3},
}


def _augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blur a third of the batch, add noise to it or leave it, and shift the whole batch by up to 3 pixels.

    The model thereby learns slightly soft or grainy images, too. `x` is float32 (N, 3, H, W) and is changed in place.
    """
    kind = rng.random()
    n = len(x) // 3
    if kind < 0.4:
        x[:n] = F.interpolate(F.avg_pool2d(x[:n], 2), scale_factor=2.0, mode="bilinear")
    elif kind < 0.8:
        x[:n] += float(rng.uniform(0.02, 0.25)) * torch.randn_like(x[:n])
    dy, dx = rng.integers(-3, 4, 2).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


def train(split: Split, steps: int, folder: Path, seed: int = 0) -> nn.Module:
    """Train with the InfoNCE loss, save configuration and weights into `folder`, and return the model in float32.

    Where a caption occurs more than once in a batch, all of its images count as matches.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / f"{NAME}.json"
    config.write_text(json.dumps(CONFIG, indent=1) + "\n")
    short = folder / f"{NAME}-short.json"
    short.write_text(json.dumps(CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"context_length": TRAINING_CONTEXT}}))
    open_clip.add_model_config(short)
    open_clip.add_model_config(config)
    short.unlink()
    full = open_clip.create_model(NAME, pretrained=None)
    model, _, preprocess = open_clip.create_model_and_transforms(f"{NAME}-short", pretrained=None)
    tokenizer = open_clip.get_tokenizer(f"{NAME}-short")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocess.transforms[-1].mean, preprocess.transforms[-1].std))
    unique, index = np.unique(split.captions, return_inverse=True)
    tokens = torch.cat([tokenizer(unique[k : k + 1000].tolist()) for k in range(0, len(unique), 1000)])
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    plain = [p for n, p in model.named_parameters() if p.ndim <= 1 or "embedding" in n]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps, pct_start=0.08)
    model.train()
    for _ in track(range(steps), "training CLIP"):
        rows = rng.integers(len(index), size=BATCH)
        x = torch.from_numpy(split.pixels[rows]).permute(0, 3, 1, 2).float() / 255
        x = _augment((x - mean) / std, rng)
        caption = torch.from_numpy(index[rows])
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(x)
            text = model.encode_text(tokens[caption])
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        target = (caption[:, None] == caption[None, :]).float()
        target = target / target.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    state = model.state_dict()
    positions = full.positional_embedding.detach().clone()
    positions[:TRAINING_CONTEXT] = state["positional_embedding"]
    full.load_state_dict(state | {"positional_embedding": positions})
    full.eval()
    save_model(full.half(), str(folder / "open_clip_model.safetensors"))
    return full.float()

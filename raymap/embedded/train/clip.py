"""Trains the embedded CLIP, open_clip's image and text towers, on images of the world and on drawn ones.

Two losses are added. The contrastive one (InfoNCE, Radford et al. 2021) is over batches that are made of groups: a
caption's images stand beside images and captions of its near misses, which thus are its hard negatives. The other one
gives the cosine a scale that is the same for all prompts: within a group it should be `FULL` times the share of the
caption that an image shows.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raymap.embedded.train import drawn, nuisance
from raymap.embedded.train.groups import Groups, joined, rendered
from raymap.embedded.train.vocabulary import world_tokenizer

RENDERED = 20_000
DRAWN = 256
"""Groups per update of a base's weights."""
UPDATES = 8
"""Updates per base."""
BATCH = 256, 128
"""Groups of rendered and of drawn images in a batch."""
PEAK_LR = 1.2e-3
FULL = 0.8
SCALE_WEIGHT = 20.0
DRAWN_WEIGHT = 0.5
HARMED = 0.4
"""An image without a caption that shows more than this of its group's caption is no negative for it."""
UNKNOWN = 0.15
"""Share of captions into which an unknown word is inserted."""
CONTEXT, TRAINING_CONTEXT = 77, 32
"""Tokens per prompt, and during training: no caption is longer, and nothing behind its end is looked at."""
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 192, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": CONTEXT, "width": 128, "heads": 4, "layers": 4, "hf_tokenizer_name": "own"},
}


class Images:
    """Groups on a device: pixels, rows of unique captions (-1 where there is none), shares shown, masks."""

    def __init__(self, groups: Groups, captions: dict[str, int], device: torch.device) -> None:
        rows = np.array([captions.get(c, -1) for c in groups.captions.ravel()]).reshape(groups.captions.shape)
        self.pixels, self.shown, self.masks, self.texts = (
            torch.from_numpy(x).to(device) for x in (groups.pixels, groups.shown, groups.masks, rows)
        )

    def batch(self, n: int) -> tuple[torch.Tensor, ...]:
        """Return `n` random groups: images float32 (n, SLOTS, 3, 64, 64) in [0, 1], texts, shares, masks."""
        at = torch.randint(len(self.pixels), (n,), device=self.pixels.device)
        pixels = self.pixels[at].permute(0, 1, 4, 2, 3).float() / 255
        return pixels, self.texts[at], self.shown[at], self.masks[at].float() / 255


def train(steps: int, bases: list[Path], folder: Path, device: torch.device, scale: float = 1.0) -> nn.Module:
    """Make the images, train, save configuration, tokenizer and weights into `folder`; return the model in float32.

    Args:
        steps: steps of the training.
        bases: folders of the embedded bases whose images it also learns from.
        folder: is written as open_clip reads a local directory.
        device: draws and trains; the world is rendered on all cores.
        scale: multiplies the numbers of images.
    """
    torch.manual_seed(0)
    start = time.perf_counter()
    with ProcessPoolExecutor(min(15, os.cpu_count() or 1)) as pool:
        chunks = rendered(pool, round(RENDERED * scale))
        artists = [drawn.Artist(base, device) for base in bases]
        n, updates = max(8, round(DRAWN * min(1, scale))), max(1, round(UPDATES * scale))
        jobs = [(artist, 1000 * k + u) for u in range(updates) for k, artist in enumerate(artists)]
        ours = joined([drawn.groups(artist, n, seed) for artist, seed in track(jobs, "drawing images")])
        drawn_at = time.perf_counter()
        world = joined(list(chunks))
    Console().print(
        f"{len(ours)} groups drawn in {drawn_at - start:.0f} s, {len(world)} rendered by "
        f"{time.perf_counter() - start:.0f} s"
    )
    captions = sorted({c for g in (world, ours) for c in g.captions.ravel() if c})
    index = {c: k for k, c in enumerate(captions)}
    tokenizer = world_tokenizer(captions, CONTEXT)
    rng = np.random.default_rng(0)
    length = {"padding": "max_length", "max_length": TRAINING_CONTEXT, "truncation": True}
    both = (captions, [_with_unknown_word(c, rng) for c in captions])
    tokens = torch.stack([tokenizer(texts, **length, return_tensors="pt").input_ids for texts in both])
    sources = [Images(g, index, device) for g in (world, ours)]
    model = _model(len(tokenizer), TRAINING_CONTEXT).train().to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(max(0.0, min(0.998, 1 - 10 / steps))))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    _fit(model, average, sources, tokens.to(device), steps, lambda: _save(average.module, len(tokenizer), folder))
    return _save(average.module, len(tokenizer), folder)


def _with_unknown_word(caption: str, rng: np.random.Generator) -> str:
    """Insert a word of two to five random letters: a prompt with an adapter's trigger means what it means without."""
    words = caption.split()
    letters = "".join(chr(97 + k) for k in rng.integers(26, size=int(rng.integers(2, 6))))
    words.insert(int(rng.integers(1, len(words) + 1)), letters)
    return " ".join(words)


def _model(vocabulary: int, context: int) -> Any:
    text = open_clip.CLIPTextCfg(**CONFIG["text_cfg"] | {"vocab_size": vocabulary, "context_length": context})
    return open_clip.CLIP(CONFIG["embed_dim"], open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"]), text)


def _fit(
    model: Any,
    average: AveragedModel,
    sources: list[Images],
    tokens: torch.Tensor,
    steps: int,
    save: Callable[[], object],
) -> None:
    """Train; four times on the way the averaged weights are saved, in case the training is cut off."""
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    plain = [p for n, p in model.named_parameters() if p.ndim <= 1 or "embedding" in n]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps, pct_start=0.08)
    start = time.perf_counter()
    for step in track(range(steps), "training CLIP"):
        batches = [source.batch(n) for source, n in zip(sources, BATCH, strict=True)]
        contrast, scaling = _losses(model, batches, tokens)
        optimizer.zero_grad()
        (contrast + SCALE_WEIGHT * scaling).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        if (step + 1) % max(1, steps // 4) == 0:
            save()
        if step + 1 in (50, 200) or (step + 1) % max(1, steps // 8) == 0:
            seconds = (time.perf_counter() - start) / (step + 1)
            Console().print(
                f"step {step + 1}: contrast {contrast.item():.3f}, scale {scaling.item():.4f}, {seconds:.3f} s a step, "
                f"{seconds * (steps - step - 1):.0f} s left"
            )


def _losses(
    model: Any, batches: list[tuple[torch.Tensor, ...]], tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the contrastive loss and the mean squared error of the cosines within groups.

    Args:
        model: open_clip's model.
        batches: of rendered and of drawn groups, as `Images.batch` returns them.
        tokens: int (2, captions, positions), of all captions, and of the same ones with an unknown word each.
    """
    pixels, texts, shown, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    weights = torch.ones_like(shown)
    weights[len(batches[0][0]) :] = DRAWN_WEIGHT
    hidden, left = nuisance.covered(pixels[:, 0], masks)
    pixels = torch.cat([pixels, hidden[:, None]], 1)
    shown = torch.cat([shown, left[:, None]], 1)
    weights = torch.cat([weights, weights[:, :1]], 1)
    texts = torch.cat([texts, torch.full_like(texts[:, :1], -1)], 1)
    mean, std = (
        torch.tensor(v, device=pixels.device).view(3, 1, 1)
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    named = texts.flatten() >= 0
    unique, which = torch.unique(texts.flatten()[named], return_inverse=True)
    pixels = (nuisance.changed(pixels.flatten(0, 1)) - mean) / std
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
        image = model.encode_image(pixels)
        text = model.encode_text(tokens[(torch.rand(len(unique), device=unique.device) < UNKNOWN).long(), unique])
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
    slots = texts.shape[1]
    first = torch.arange(0, len(named), slots, device=image.device)
    own = which[torch.isin(named.nonzero().flatten(), first)]
    by_image = F.cross_entropy(logits[named], which)
    matches = torch.zeros_like(logits)
    matches[named, which] = 1
    group, slot = ((texts < 0) & (shown > HARMED)).nonzero(as_tuple=True)
    rivals = logits.T.clone()
    rivals[own[group], group * slots + slot] = -1e4
    by_text = -(F.log_softmax(rivals, dim=1) * (matches / matches.sum(0)).T).sum(1).mean()
    cosines = (image.view(len(texts), slots, -1) * text[own][:, None]).sum(-1)
    scaling = (weights * (cosines - FULL * shown).square()).mean()
    return (by_image + by_text) / 2, scaling


def _save(trained: Any, vocabulary: int, folder: Path) -> nn.Module:
    """Write the configuration and, in half precision, the weights; positions no caption reached stay as they began."""
    full = _model(vocabulary, CONTEXT)
    state = {k: v.detach().float().cpu() for k, v in trained.state_dict().items()}
    positions = full.positional_embedding.detach().clone()
    positions[:TRAINING_CONTEXT] = state["positional_embedding"]
    buffers = {k: v for k, v in full.state_dict().items() if k == "attn_mask"}
    full.load_state_dict(state | {"positional_embedding": positions} | buffers)
    config = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"vocab_size": vocabulary}}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": {}}, indent=1)
    (folder / "open_clip_config.json").write_text(text + "\n")
    partial = folder / "open_clip_model.partial"
    save_model(full.half(), str(partial))
    partial.replace(folder / "open_clip_model.safetensors")
    return full.float().eval()

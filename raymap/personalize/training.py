"""The loop that all methods share: views and prior in, optimizer steps out. What is trained, the method says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from raymap.personalize.views import Views
from raymap.recipes import Recipe

REPORT_EVERY = 10
Encoder = Callable[[list[str]], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """Where a training is: optimizer steps done, mean loss over the steps since the last report."""

    done: int
    loss: float


def fit(
    pipeline: StableDiffusionPipeline,
    weights: list[torch.nn.Parameter],
    encode: Encoder,
    views: Views,
    prior: Views | None,
    recipe: Recipe,
) -> Iterator[Step]:
    """Train `weights` on the denoising loss, yielding progress every ten steps.

    Every step samples views, captions, latents, noise and timesteps from the recipe's seed. A masked view's loss is
    summed over channels and averaged over the mask's pixels, as diffusers' train_custom_diffusion.py has it; with a
    prior, as many class pictures join the batch, their mean squared error times `prior_weight`.

    Args:
        encode: captions -> embeddings (N, 77, width), with a gradient where a token is learned.
    """
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    velocity = schedule.config.prediction_type == "v_prediction"
    random = torch.Generator("cpu").manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    size = recipe.batch_size
    losses = []
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(views.mean), (size,), generator=random)
        clean, captions = views.sample(rows, random), _captions(views, rows, random)
        if prior is not None:
            chosen = torch.randint(len(prior.mean), (size,), generator=random)
            clean = torch.cat([clean, prior.sample(chosen, random)])
            captions += _captions(prior, chosen, random)
        noise = torch.randn(clean.shape, generator=random).to(clean.device)
        timesteps = torch.randint(schedule.config.num_train_timesteps, (len(clean),), generator=random)
        timesteps = timesteps.to(clean.device)
        predicted = pipeline.unet(schedule.add_noise(clean, noise, timesteps), timesteps, encode(captions)).sample
        target = schedule.get_velocity(clean, noise, timesteps) if velocity else noise
        squared = (predicted - target).square()
        if views.masks is None:
            loss = squared[:size].mean()
        else:
            mask = views.masks[rows]
            loss = ((squared[:size] * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()
        if prior is not None and recipe.prior_weight is not None:
            loss = loss + recipe.prior_weight * squared[size:].mean()
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
        optimizer.step()
        losses.append(loss.item())
        if step % REPORT_EVERY == 0 or step == recipe.steps:
            yield Step(step, float(np.mean(losses)))
            losses = []


def _captions(views: Views, rows: torch.Tensor, random: torch.Generator) -> list[str]:
    """Choose one caption a row; a view with a single caption draws no random number."""
    chosen = []
    for row in rows.tolist():
        known = views.captions[row]
        at = int(torch.randint(len(known), (1,), generator=random)) if len(known) > 1 else 0
        chosen.append(known[at])
    return chosen

"""The training loop that methods share: it fits whatever weights a method gives it to training views."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from raymap.base.pipeline import denoiser_of
from raymap.drawing.prompts import Encoding
from raymap.personalize.objectives.objective import Objective, objective_of
from raymap.personalize.step import Step
from raymap.personalize.views import Views
from raymap.store.files import read_file, write_atomically
from raymap.study.recipes import Recipe

REPORT_EVERY = 10
CHECKPOINT_EVERY = 100
Encoder = Callable[[list[str]], Encoding]


@dataclass(frozen=True)
class _Batch:
    """One subject's samples in a step: `clean` and `noise` (n, channels, h, w), noise levels `times` (n,) and captions.

    `rows` are the rows of the subject's views; samples of its class, if any, come after those.
    """

    clean: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor
    captions: list[str]
    rows: torch.Tensor


def fit(
    pipeline: DiffusionPipeline,
    weights: list[torch.nn.Parameter],
    encode: Encoder,
    views: list[Views],
    priors: list[Views] | None,
    recipe: Recipe,
    checkpoint: Path,
) -> Iterator[Step]:
    """Train `weights` (subjects, …) by the base's objective, all subjects in one batch, and yield the progress.

    Each subject has its own random numbers from the recipe's seed, its own loss, gradient norm and slice of the
    optimizer's state. So it learns what it would learn alone, up to rounding: a larger batch may sum in another order.
    The loss of a masked view is summed over channels and averaged over the mask's pixels, as in diffusers'
    train_custom_diffusion.py. With a prior, equally many class images join the batch, and their mean squared error
    counts `prior_weight` times.

    A base that was loaded in bfloat16 is trained in mixed precision: matrix products are computed in bfloat16, while
    the weights that are trained, their gradients and the loss stay in float32.

    Args:
        views: each subject's training views.
        priors: views of each subject's class, or None.
        encode: takes captions, one subject's after another's, and returns what the pipeline's `encode_prompt` gives for
            them without guidance, with a gradient if a token is learned.
        checkpoint: the file that is written every hundred steps. If it exists, training continues from it, and the
            steps before it are yielded again.
    """
    objective = objective_of(pipeline)
    mixed = torch.autocast(pipeline.device.type, torch.bfloat16, denoiser_of(pipeline).dtype == torch.bfloat16)
    randoms = [torch.Generator("cpu").manual_seed(recipe.seed) for _ in views]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = _resume(checkpoint, weights, optimizer, randoms) if checkpoint.exists() else []
    yield from steps
    losses = []
    for step in range(steps[-1].done + 1 if steps else 1, recipe.steps + 1):
        batches = [
            _sample(own, priors[k] if priors else None, recipe, objective, randoms[k]) for k, own in enumerate(views)
        ]
        clean, noise, times = (
            torch.cat([getattr(batch, name) for batch in batches]) for name in ("clean", "noise", "times")
        )
        with mixed:
            texts = encode([caption for batch in batches for caption in batch.captions])
            predicted, target = objective.predict(clean, noise, times, texts)
        squared = (predicted.float() - target).square().unflatten(0, (len(views), -1))
        each = torch.stack([_loss(squared[k], own, batches[k].rows, recipe) for k, own in enumerate(views)])
        optimizer.zero_grad()
        each.sum().backward()
        if recipe.clip_norm is not None:
            _clip(weights, recipe.clip_norm)
        optimizer.step()
        losses.append(each.detach())
        if step % REPORT_EVERY == 0 or step == recipe.steps:
            steps.append(Step(step, tuple(torch.stack(losses).mean(0).tolist())))
            losses = []
            yield steps[-1]
        if step % CHECKPOINT_EVERY == 0 and step < recipe.steps:
            _save(checkpoint, weights, optimizer, randoms, steps)


def _sample(views: Views, prior: Views | None, recipe: Recipe, objective: Objective, random: torch.Generator) -> _Batch:
    """Draw one subject's samples for a step; those of the class follow those of the subject."""
    device = views.mean.device
    rows = torch.randint(len(views.mean), (recipe.batch_size,), generator=random)
    clean, captions = views.sample(rows, random), _captions(views, rows, random)
    if prior is not None:
        chosen = torch.randint(len(prior.mean), (recipe.batch_size,), generator=random)
        clean = torch.cat([clean, prior.sample(chosen, random)])
        captions += _captions(prior, chosen, random)
    noise = torch.randn(clean.shape, generator=random).to(device)
    return _Batch(clean, noise, objective.times(len(clean), random).to(device), captions, rows)


def _captions(views: Views, rows: torch.Tensor, random: torch.Generator) -> list[str]:
    """Choose one caption per row; a view with a single caption takes no random number."""
    chosen = []
    for row in rows.tolist():
        captions = views.captions[row]
        at = int(torch.randint(len(captions), (1,), generator=random)) if len(captions) > 1 else 0
        chosen.append(captions[at])
    return chosen


def _loss(squared: torch.Tensor, views: Views, rows: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Return one subject's loss from squared errors (n, channels, h, w): of its own views, then of the prior's."""
    own, prior = squared[: len(rows)], squared[len(rows) :]
    if views.masks is None:
        loss = own.mean()
    else:
        mask = views.masks[rows]
        loss = ((own * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()
    return loss + recipe.prior_weight * prior.mean() if len(prior) and recipe.prior_weight else loss


@torch.no_grad()
def _clip(weights: list[torch.nn.Parameter], limit: float) -> None:
    """Scale each subject's gradients as torch's `clip_grad_norm_` would scale them alone."""
    gradients = [w.grad.flatten(1) for w in weights if w.grad is not None]
    norms = torch.stack([g.square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (limit / (norms + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(scale[:, None])


def _save(
    path: Path,
    weights: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    randoms: list[torch.Generator],
    steps: list[Step],
) -> None:
    buffer = io.BytesIO()
    state = {
        "weights": [weight.detach() for weight in weights],
        "optimizer": optimizer.state_dict(),
        "randoms": [random.get_state() for random in randoms],
        "steps": [astuple(step) for step in steps],
    }
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _resume(
    path: Path, weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, randoms: list[torch.Generator]
) -> list[Step]:
    """Restore everything from the checkpoint, and return the steps that were reported before it."""
    state = torch.load(io.BytesIO(read_file(path)), map_location="cpu", weights_only=True)
    for weight, saved in zip(weights, state["weights"], strict=True):
        weight.data.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    for random, saved in zip(randoms, state["randoms"], strict=True):
        random.set_state(saved)
    return [Step(done, losses) for done, losses in state["steps"]]

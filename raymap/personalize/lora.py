"""DreamBooth-LoRA: a pipeline, reference images and a recipe go in, LoRA weights come out.

Follows diffusers' `examples/dreambooth/train_dreambooth_lora.py` (UNet only, no prior preservation): gaussian
initialisation, AdamW, constant learning rate, gradient norm clipped to 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from raymap.adapters.lora import LORA_FILE, METADATA
from raymap.study import LoraRecipe

ADAPTER = "default"
REPORT_EVERY = 10


@dataclass(frozen=True)
class Step:
    """Where a training is: optimizer steps done, mean loss over the steps since the last report."""

    done: int
    loss: float


def add_lora(pipeline: StableDiffusionPipeline, recipe: LoraRecipe) -> None:
    """Attach a fresh LoRA to the UNet: A gaussian by the recipe's seed, B = 0, so that it changes nothing yet."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        pipeline.unet.add_adapter(
            LoraConfig(
                r=recipe.rank,
                lora_alpha=recipe.alpha or recipe.rank,
                init_lora_weights="gaussian",
                target_modules=list(recipe.targets),
            ),
            adapter_name=ADAPTER,
        )


def train_lora(
    pipeline: StableDiffusionPipeline, images: np.ndarray, prompt: str, recipe: LoraRecipe
) -> Iterator[Step]:
    """Train the attached LoRA, yielding progress every ten steps.

    Latent distributions and the prompt's embeddings are computed once; every step samples a latent, a noise and a
    timestep from the recipe's seed.

    Args:
        images: uint8 (N, H, W, 3), of the base's size.
        prompt: the caption of every image, trigger included.
    """
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    device = pipeline.device
    random = torch.Generator("cpu").manual_seed(recipe.seed)
    with torch.no_grad():
        x = torch.tensor(images).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
        latents = pipeline.vae.encode(x).latent_dist
        embeddings, _ = pipeline.encode_prompt(prompt, device, 1, False)
    factor = pipeline.vae.config.scaling_factor
    weights = [p for p in pipeline.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    losses = []
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(images), (recipe.batch_size,), generator=random)
        shape = (recipe.batch_size, *latents.mean.shape[1:])
        spread = torch.randn(shape, generator=random).to(device)
        clean = (latents.mean[rows] + latents.std[rows] * spread) * factor
        noise = torch.randn(shape, generator=random).to(device)
        timesteps = torch.randint(schedule.config.num_train_timesteps, (recipe.batch_size,), generator=random)
        timesteps = timesteps.to(device)
        predicted = pipeline.unet(
            schedule.add_noise(clean, noise, timesteps),
            timesteps,
            embeddings.expand(recipe.batch_size, -1, -1),
        ).sample
        velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(clean, noise, timesteps) if velocity else noise
        loss = F.mse_loss(predicted, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % REPORT_EVERY == 0 or step == recipe.steps:
            yield Step(step, float(np.mean(losses)))
            losses = []


def save_lora(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the attached LoRA as `pytorch_lora_weights.safetensors`, alpha in its metadata, and detach it."""
    folder.mkdir(parents=True, exist_ok=True)
    collated = _collate_lora_metadata({"unet": pipeline.unet})["unet_lora_adapter_metadata"]
    # Equal weights give equal files: peft's set of targets is sorted, and a single metadata entry has one order
    # (several, as diffusers' own writer leaves them, are shuffled anew in every process).
    config = {f"unet.{k}": sorted(v) if isinstance(v, set | list) else v for k, v in collated.items()}
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    save_file(
        {f"unet.{name}": weight.contiguous() for name, weight in layers.items()},
        folder / LORA_FILE,
        metadata={METADATA: json.dumps(config, indent=2, sort_keys=True)},
    )
    pipeline.unet.unload_lora()

"""Trains the denoiser together with its text encoder and saves both in a StableDiffusionPipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from open_clip.tokenizer import SimpleTokenizer
from rich.progress import track
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from raymap.embedded.train import vae

BATCH = 48
PEAK_LR = 1.2e-3
WARMUP = 200
COOLDOWN = 0.3
SECOND_ROUND = 4 / 9
DROP_CAPTION = 0.1
SAVE_EVERY = 500
TEXT_WIDTH = 96


class Denoiser(nn.Module):
    """A UNet and the text encoder that conditions it, trained as one model."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                num_hidden_layers=3,
                num_attention_heads=3,
                projection_dim=TEXT_WIDTH,
                bos_token_id=49406,
                eos_token_id=49407,
                pad_token_id=49407,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(64, 128, 160),
            layers_per_block=1,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=(2, 4, 5),
            norm_num_groups=16,
        )

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.unet(noisy, timestep, self.text_encoder(tokens).last_hidden_state).sample


def scheduler() -> DPMSolverMultistepScheduler:
    """Return the pipeline's sampler: Stable Diffusion's noise schedule with v-prediction."""
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def tokenizer() -> CLIPTokenizer:
    """Return the standard CLIP tokenizer, built from the merges that open_clip ships with."""
    bpe = SimpleTokenizer()
    vocab = {("<|startoftext|>" if k == "<start_of_text>" else "<|endoftext|>" if k == "<end_of_text>" else k): v
             for k, v in bpe.encoder.items()}  # fmt: skip
    merges = [pair for pair, _ in sorted(bpe.bpe_ranks.items(), key=lambda item: item[1])]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def rate(step: int, steps: int) -> float:
    """Return a step's learning rate as a share of the peak: warm-up, a plateau, then a straight line down to zero."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (COOLDOWN * steps))


def position_in_round(step: int, steps: int) -> tuple[int, int]:
    """Return the step within its round and the round's length; the second round takes `SECOND_ROUND` of all steps."""
    first = round(steps * (1 - SECOND_ROUND))
    return (step, first) if step < first else (step - first, steps - first)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """Return a new optimizer; `train` sets its learning rate at every step."""
    return torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.0)


def train(latents: torch.Tensor, captions: np.ndarray, steps: int, folder: Path, checkpoint: Path) -> None:
    """Train on scaled latents, float32 (N, 4, 16, 16), and their captions (N,); resume from `checkpoint` if it exists.

    The target is the velocity of Salimans & Ho (2022); the saved weights are an exponential moving average (0.999).
    There are two rounds (a warm restart, Loshchilov & Hutter 2017): the second starts from the average of the first
    with a new optimizer. After the first round the base is usable already, but draws more softly.
    """
    torch.manual_seed(0)
    bpe = tokenizer()
    tokens = bpe(captions.tolist(), padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = bpe("", padding="max_length", return_tensors="pt").input_ids[0]
    model = Denoiser().train().to(memory_format=torch.channels_last)
    model.unet.set_attn_processor(AttnProcessor())  # on a CPU its backward pass is a third faster than the fused one
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    optimizer = adamw(model)
    alphas = scheduler().alphas_cumprod
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in track(range(first, steps), "training the denoiser"):
        random = torch.Generator().manual_seed(step)
        step_of_round, length = position_in_round(step, steps)
        if step > 0 and step_of_round == 0:
            model.load_state_dict(average.module.state_dict())
            optimizer = adamw(model)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * rate(step_of_round, length)
        rows = torch.randint(len(latents), (BATCH,), generator=random)
        x, noise = latents[rows], torch.randn(BATCH, 4, 16, 16, generator=random)
        timestep = torch.randint(1000, (BATCH,), generator=random)
        signal, spread = (
            alphas[timestep].sqrt().view(-1, 1, 1, 1),
            (1 - alphas[timestep]).sqrt().view(-1, 1, 1, 1),
        )
        dropped = torch.rand(BATCH, generator=random) < DROP_CAPTION
        text = torch.where(dropped[:, None], empty, tokens[rows])
        noisy = (signal * x + spread * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(noisy, timestep, text)
        loss = F.mse_loss(velocity.float(), signal * noise - spread * x)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "average": average.state_dict()}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state | {"optimizer": optimizer.state_dict(), "step": step + 1}, partial)
            partial.replace(checkpoint)
            save(average.module.state_dict(), folder)


def save(weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the pipeline, in half precision, beside the autoencoder that `folder`/vae already holds."""
    copy = Denoiser().eval()
    copy.load_state_dict(weights)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=copy.text_encoder,
        tokenizer=tokenizer(),
        unet=copy.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    # transformers loads in the dtype that its configuration names, diffusers in float32; this makes both load float32.
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    vae.forget_origin(folder / "vae")

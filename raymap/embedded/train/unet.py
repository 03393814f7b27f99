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
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from raymap.embedded.train import vae
from raymap.embedded.train.fit import fit
from raymap.embedded.train.vocabulary import world_tokenizer

BATCH = 48
PEAK_LR = 1.2e-3
DROP_CAPTION = 0.1
TEXT_WIDTH = 96
TOKENS = 77
"""Tokens per prompt, as in Stable Diffusion."""


class Denoiser(nn.Module):
    """A UNet and the text encoder that conditions it, trained as one model."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                num_hidden_layers=3,
                num_attention_heads=3,
                projection_dim=TEXT_WIDTH,
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                max_position_embeddings=TOKENS,
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


def train(
    latents: torch.Tensor, captions: np.ndarray, steps: int, folder: Path, checkpoint: Path, device: torch.device
) -> None:
    """Train on scaled latents, float32 (N, 4, 16, 16), and their captions (N,); resume from `checkpoint` if it exists.

    The target is the velocity of Salimans & Ho (2022).
    """
    torch.manual_seed(0)
    bpe = world_tokenizer(np.unique(captions), TOKENS)
    tokens = bpe(captions.tolist(), padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = bpe("", padding="max_length", return_tensors="pt").input_ids[0]
    model = Denoiser(bpe).train().to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":  # where its backward pass is a third faster than the fused one
        model.unet.set_attn_processor(AttnProcessor())
    latents, tokens, empty = latents.to(device), tokens.to(device), empty.to(device)
    alphas = scheduler().alphas_cumprod.to(device)

    def loss_of(random: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(latents), (BATCH,), generator=random, device=device)
        x, noise = latents[rows], torch.randn(BATCH, 4, 16, 16, generator=random, device=device)
        timestep = torch.randint(1000, (BATCH,), generator=random, device=device)
        signal, spread = (
            alphas[timestep].sqrt().view(-1, 1, 1, 1),
            (1 - alphas[timestep]).sqrt().view(-1, 1, 1, 1),
        )
        dropped = torch.rand(BATCH, generator=random, device=device) < DROP_CAPTION
        text = torch.where(dropped[:, None], empty, tokens[rows])
        noisy = (signal * x + spread * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = model(noisy, timestep, text)
        return F.mse_loss(velocity.float(), signal * noise - spread * x)

    fit(model, loss_of, PEAK_LR, steps, checkpoint, lambda weights: save(weights, bpe, folder))


def save(weights: dict[str, torch.Tensor], bpe: CLIPTokenizer, folder: Path) -> None:
    """Write the pipeline, in half precision, beside the autoencoder that `folder`/vae already holds."""
    copy = Denoiser(bpe).eval()
    copy.load_state_dict(weights)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=copy.text_encoder,
        tokenizer=bpe,
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

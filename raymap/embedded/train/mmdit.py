"""Trains a multimodal diffusion transformer with its text encoders and saves a StableDiffusion3Pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from raymap.embedded.train.fit import fit
from raymap.embedded.train.vocabulary import world_tokenizer

BATCH = 48
PEAK_LR = 1e-3
DROP_CAPTION = 0.1
TOKENS = 40
"""Tokens per prompt: captions have at most 28, and every further position costs all blocks' attention."""
T5_POSITIONS = 1
"""Zero positions in the place of T5's, which the pipeline appends; it takes their number as `max_sequence_length`."""
SAMPLER = {"steps": 20, "guidance_scale": 5.0}
"""What a study draws with unless it says otherwise."""
WIDTH, BLOCKS, HEADS = 192, 5, 6
ENCODERS = ((96, 3, 3), (32, 2, 1))
"""Width, layers and heads of the two text encoders, whose outputs stand side by side."""


class Denoiser(nn.Module):
    """A transformer of Stable Diffusion 3's kind and its two CLIP text encoders, trained as one model."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        first, second = (
            CLIPTextModelWithProjection(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=width,
                    intermediate_size=4 * width,
                    num_hidden_layers=layers,
                    num_attention_heads=heads,
                    projection_dim=width,
                    max_position_embeddings=TOKENS,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            )
            for width, layers, heads in ENCODERS
        )
        self.text_encoder, self.text_encoder_2 = first, second
        text = sum(width for width, _, _ in ENCODERS)
        self.transformer = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=BLOCKS,
            attention_head_dim=WIDTH // HEADS,
            num_attention_heads=HEADS,
            joint_attention_dim=text,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=text,
            pos_embed_max_size=16,
            qk_norm="rms_norm",
        )
        zero = [self.transformer.proj_out]  # each block begins as the identity (Peebles & Xie 2023)
        zero += [norm.linear for b in self.transformer.transformer_blocks for norm in (b.norm1, b.norm1_context)]
        for layer in zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        encoded = [e(tokens, output_hidden_states=True) for e in (self.text_encoder, self.text_encoder_2)]
        text = torch.cat([e.hidden_states[-2] for e in encoded], -1)
        text = F.pad(text, (0, 0, 0, T5_POSITIONS))
        pooled = torch.cat([e.text_embeds for e in encoded], -1)
        out: torch.Tensor = self.transformer(noisy, text, pooled, timestep, return_dict=False)[0]
        return out


def train(
    latents: torch.Tensor, captions: np.ndarray, steps: int, folder: Path, checkpoint: Path, device: torch.device
) -> None:
    """Train on scaled latents, float32 (N, 4, 16, 16), and their captions (N,); resume from `checkpoint` if it exists.

    The target is a rectified flow's velocity, at times drawn from a logit-normal distribution (Esser et al. 2024).
    The pipeline is saved into `folder`, whose sibling `pipeline/vae` is the autoencoder that the latents came from.
    """
    torch.manual_seed(0)
    bpe = world_tokenizer(np.unique(captions), TOKENS)
    tokens = bpe(captions.tolist(), padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = bpe("", padding="max_length", return_tensors="pt").input_ids[0]
    model = Denoiser(bpe).train().to(device)
    latents, tokens, empty = latents.to(device), tokens.to(device), empty.to(device)

    def loss_of(random: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(latents), (BATCH,), generator=random, device=device)
        x, noise = latents[rows], torch.randn(BATCH, 4, 16, 16, generator=random, device=device)
        time = torch.sigmoid(torch.randn(BATCH, generator=random, device=device))
        dropped = torch.rand(BATCH, generator=random, device=device) < DROP_CAPTION
        text = torch.where(dropped[:, None], empty, tokens[rows])
        noisy = torch.lerp(x, noise, time.view(-1, 1, 1, 1))
        with torch.autocast(device.type, torch.bfloat16):
            velocity = model(noisy, 1000 * time, text)
        return F.mse_loss(velocity.float(), noise - x)

    fit(model, loss_of, PEAK_LR, steps, checkpoint, lambda weights: save(weights, bpe, folder))


def save(weights: dict[str, torch.Tensor], bpe: CLIPTokenizer, folder: Path) -> None:
    """Write the pipeline in half precision, without what it shares, and how it is called and sampled."""
    copy = Denoiser(bpe).eval()
    copy.load_state_dict(weights)
    pipeline = StableDiffusion3Pipeline(
        transformer=copy.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL.from_pretrained(folder.parent / "pipeline" / "vae"),
        text_encoder=copy.text_encoder,
        tokenizer=bpe,
        text_encoder_2=copy.text_encoder_2,
        tokenizer_2=bpe,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    for name in ("text_encoder", "text_encoder_2"):  # transformers would load them in float16, diffusers in float32
        config = folder / name / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    shutil.rmtree(folder / "vae")  # `raymap.base.embedded` adds what both bases have
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name / "tokenizer.json").unlink()
    index = folder / "model_index.json"
    third: dict[str, list[None]] = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    index.write_text(json.dumps(json.loads(index.read_text()) | third, indent=2) + "\n")  # save_pretrained drops them
    own = {"call": {"max_sequence_length": T5_POSITIONS}, "sampler": SAMPLER}
    (folder / "raymap.json").write_text(json.dumps(own, indent=2) + "\n")

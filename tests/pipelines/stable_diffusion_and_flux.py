"""Tiny pipelines of Stable Diffusion, FLUX and Chroma."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import CLIPTextModelWithProjection

from raymap.base.clip_tokenizer import clip_tokenizer
from tests.pipelines.parts import (
    SMALL,
    Made,
    byte_tokenizer,
    clip,
    qwen_3,
    t5,
    vae,
)


def stable_diffusion() -> Made:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=32,
        norm_num_groups=4,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(shift_factor=None),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipeline, {}


def stable_diffusion_xl() -> Made:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=2,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=80,
        norm_num_groups=4,
    )
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae(shift_factor=None),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection, 48),  # of another width, as published ones are
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading", **schedule),
    )
    return pipeline, {}


def stable_diffusion_3() -> Made:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=32,
    )
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=clip(CLIPTextModelWithProjection, 16),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection, 16),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=byte_tokenizer(64),
    )
    return pipeline, {}


FLUX = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
}


def flux(guidance: bool = True) -> Made:
    transformer = diffusers.FluxTransformer2DModel(
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance, **FLUX
    )
    pipeline = diffusers.FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=byte_tokenizer(64),
        transformer=transformer,
    )
    return pipeline, SMALL


def flux_schnell() -> Made:
    return flux(guidance=False)


def chroma() -> Made:
    transformer = diffusers.ChromaTransformer2DModel(
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
        **FLUX,
    )
    pipeline = diffusers.ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=t5(),
        tokenizer=byte_tokenizer(64),
        transformer=transformer,
    )
    return pipeline, SMALL


def _flux_2(kind: type[DiffusionPipeline], encoder: nn.Module, **more: Any) -> Made:
    transformer = diffusers.Flux2Transformer2DModel(
        joint_attention_dim=16, timestep_guidance_channels=256, axes_dims_rope=(4, 4, 4, 4), **FLUX, **more
    )
    autoencoder = diffusers.AutoencoderKLFlux2(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    pipeline = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=byte_tokenizer(512),
        transformer=transformer,
    )
    return pipeline, {**SMALL, "text_encoder_out_layers": [1]}


def flux_2() -> Made:
    ends = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    text = {
        "model_type": "mistral",
        "vocab_size": 300,
        "hidden_size": 16,
        "intermediate_size": 37,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "sliding_window": None,
        **ends,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "image_size": 30,
        "patch_size": 6,
        "num_channels": 3,
    }
    more = {"image_seq_length": 4, "vision_feature_layer": -1, "image_token_index": 6}
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, **ends, **more)
    return _flux_2(diffusers.Flux2Pipeline, transformers.Mistral3ForConditionalGeneration(config))


def flux_2_klein() -> Made:
    return _flux_2(diffusers.Flux2KleinPipeline, qwen_3(transformers.Qwen3ForCausalLM), guidance_embeds=False)

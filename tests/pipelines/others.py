"""Tiny pipelines of all other families."""

from __future__ import annotations

import diffusers
import transformers
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from tests.pipelines.parts import (
    MEDIUM,
    SMALL,
    Made,
    byte_tokenizer,
    gemma,
    qwen_3,
    qwen_vl,
    t5,
    umt5,
    vae,
)


def qwen_image() -> Made:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    pipeline = diffusers.QwenImagePipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=qwen_vl(16, (1, 1, 2)),
        tokenizer=byte_tokenizer(512),
    )
    return pipeline, MEDIUM


def z_image() -> Made:
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    pipeline = diffusers.ZImagePipeline(
        transformer=transformer,
        vae=vae(16),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=qwen_3(transformers.Qwen3Model),
        tokenizer=byte_tokenizer(512),
    )
    return pipeline, MEDIUM


def _pixart(kind: type[DiffusionPipeline]) -> Made:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    pipeline = kind(
        transformer=transformer,
        vae=vae(shift_factor=None),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
        text_encoder=t5(),
        tokenizer=byte_tokenizer(120),
    )
    return pipeline, {**SMALL, "use_resolution_binning": False}


def pixart_sigma() -> Made:
    return _pixart(diffusers.PixArtSigmaPipeline)


def pixart_alpha() -> Made:
    return _pixart(diffusers.PixArtAlphaPipeline)


def sana() -> Made:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
    )
    blocks = ("ResBlock", "EfficientViTBlock")
    autoencoder = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    pipeline = diffusers.SanaPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=gemma(layers=1, head=16, wide=64),
        tokenizer=byte_tokenizer(8192),
    )
    return pipeline, {**MEDIUM, "use_resolution_binning": False}


def lumina_2() -> Made:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        norm_eps=1e-5,
        scaling_factor=1.0,
        axes_dim_rope=(4, 2, 2),
        cap_feat_dim=8,
    )
    pipeline = diffusers.Lumina2Pipeline(
        transformer=transformer,
        vae=vae(blocks=(4, 4, 4, 8)),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=gemma(layers=2, head=4, wide=8),
        tokenizer=byte_tokenizer(512),
    )
    return pipeline, MEDIUM


def hunyuan_dit() -> Made:
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=24,
        activation_fn="gelu-approximate",
        text_len=77,
        text_len_t5=256,
    )
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37
    )
    pipeline = diffusers.HunyuanDiTPipeline(
        transformer=transformer,
        vae=vae(blocks=(4, 4, 4, 8), shift_factor=None),
        scheduler=diffusers.DDPMScheduler(),
        text_encoder=transformers.BertModel(config),
        tokenizer=byte_tokenizer(77),
        text_encoder_2=t5(),
        tokenizer_2=byte_tokenizer(256),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipeline, {"height": 128, "width": 128, "use_resolution_binning": False}


def hunyuan_image(distilled: bool = False) -> Made:
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        guidance_embeds=distilled,
        text_embed_dim=32,
        text_embed_2_dim=32,
        rope_axes_dim=(4, 4),
    )
    autoencoder = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=1,
        scaling_factor=0.476986,
        spatial_compression_ratio=8,
        sample_size=128,
    )
    guiders = [
        None if distilled else diffusers.AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=start)
        for start in (2, 3)
    ]
    pipeline = diffusers.HunyuanImagePipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=qwen_vl(32, (2, 2, 4)),
        tokenizer=byte_tokenizer(1000),
        text_encoder_2=t5(),
        tokenizer_2=byte_tokenizer(128),
        guider=guiders[0],
        ocr_guider=guiders[1],
    )
    return pipeline, SMALL


def wan() -> Made:
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    pipeline = diffusers.WanPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=umt5(),
        tokenizer=byte_tokenizer(512),
    )
    return pipeline, SMALL


def aura_flow() -> Made:
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        out_channels=4,
        pos_embed_max_size=256,
    )
    pipeline = diffusers.AuraFlowPipeline(
        transformer=transformer,
        vae=vae(shift_factor=None),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=umt5(),
        tokenizer=byte_tokenizer(256),
    )
    return pipeline, SMALL


def cog_view_4() -> Made:
    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=4,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
    )
    config = transformers.GlmConfig(
        hidden_size=32,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=8,
        vocab_size=300,
        pad_token_id=0,
        eos_token_id=1,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
    )
    pipeline = diffusers.CogView4Pipeline(
        transformer=transformer,
        vae=vae(),
        scheduler=scheduler,
        text_encoder=transformers.GlmForCausalLM(config),
        tokenizer=byte_tokenizer(1024),
    )
    return pipeline, SMALL

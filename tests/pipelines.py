"""Tiny pipelines of diffusers' real classes with random weights, one per family: made without a network or a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from raymap.base.settings import OWN
from raymap.embedded.model import PIPELINE

Made = tuple[DiffusionPipeline, Mapping[str, Any]]
"""A pipeline, and the arguments that each of its calls needs because it is so small."""
SPECIAL = ("<pad>", "</s>", "<s>", "<unk>", "<x1>", "<x2>", "<x3>", "<x4>")
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %} {% endfor %}"
)
SMALL = {"height": 16, "width": 16}
MEDIUM = {"height": 32, "width": 32}


def clip_tokenizer() -> CLIPTokenizer:
    """Return CLIP's tokenizer, which the embedded base has."""
    return CLIPTokenizer.from_pretrained(PIPELINE / "tokenizer")


def byte_tokenizer(length: int) -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of bytes, with a chat template, in the place of a T5's or a language model's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: k for k, name in enumerate((*SPECIAL, *letters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
        model_max_length=length,
    )
    wrapped.chat_template = CHAT
    return wrapped


def clip(kind: type[Any] = CLIPTextModel, width: int = 32) -> Any:
    """Return a small CLIP text encoder with CLIP's own vocabulary."""
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=4,
        num_hidden_layers=3,
        projection_dim=32,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    return kind(config)


def t5(width: int = 32) -> transformers.T5EncoderModel:
    """Return a small T5 encoder, whose table has more rows than its tokenizer has entries."""
    sizes = {"d_model": width, "d_ff": 37, "d_kv": 8, "num_heads": 4, "num_layers": 2}
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=300, **sizes))


def umt5() -> transformers.UMT5EncoderModel:
    """Return a small UMT5 encoder."""
    sizes = {"d_model": 32, "d_ff": 37, "d_kv": 8, "num_heads": 4, "num_layers": 2}
    return transformers.UMT5EncoderModel(transformers.UMT5Config(vocab_size=300, **sizes))


def qwen_vl(width: int, sections: tuple[int, int, int]) -> transformers.Qwen2_5_VLForConditionalGeneration:
    """Return a small Qwen2.5-VL."""
    rope = {"mrope_section": list(sections), "rope_type": "default", "type": "default"}
    text = {
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "rope_scaling": rope,
        "rope_theta": 1e6,
    }
    vision = {"depth": 1, "hidden_size": width, "intermediate_size": width, "num_heads": 2, "out_hidden_size": width}
    tokens = dict.fromkeys(("vision_end_token_id", "vision_start_token_id", "vision_token_id"), 6)
    config = transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, hidden_size=width, vocab_size=300, **tokens
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen_3(kind: type[Any]) -> Any:
    """Return a small Qwen3."""
    config = transformers.Qwen3Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=300,
        max_position_embeddings=512,
    )
    return kind(config)


def gemma(layers: int, head: int, wide: int) -> transformers.Gemma2Model:
    """Return a small Gemma 2."""
    config = transformers.Gemma2Config(
        head_dim=head,
        hidden_size=8,
        intermediate_size=wide,
        num_attention_heads=2,
        num_hidden_layers=layers,
        num_key_value_heads=2,
        vocab_size=300,
    )
    return transformers.Gemma2Model(config)


def vae(channels: int = 4, blocks: tuple[int, ...] = (4, 8), **more: Any) -> AutoencoderKL:
    """Return a small autoencoder of images."""
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=1,
        **{"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06, "scaling_factor": 1.5} | more,
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


TINY: dict[str, Callable[[], Made]] = {
    kind.__name__: kind
    for kind in (
        stable_diffusion, stable_diffusion_xl, stable_diffusion_3, flux, flux_schnell, chroma, flux_2, flux_2_klein,
        qwen_image, z_image, lumina_2, pixart_alpha, pixart_sigma, sana, hunyuan_dit, hunyuan_image, wan, aura_flow,
        cog_view_4,
    )
}  # fmt: skip


def save_tiny(name: str, folder: Path, side: int | None = None, seed: int = 0) -> Path:
    """Write a tiny pipeline into a folder, as a base that raymap draws with; equal arguments give equal weights.

    All weights of denoisers are random: layers that start from zero would hide what an adapter does.

    Args:
        side: of the images in pixels; judges need 64, and drawing alone does with fewer.
    """
    torch.manual_seed(seed)
    pipeline, call = TINY[name]()
    random = torch.Generator().manual_seed(seed + 1)
    for part in ("unet", "transformer"):
        for parameter in getattr(pipeline, part, nn.Module()).parameters():
            noise = torch.randn(parameter.shape, generator=random)
            parameter.data = 0.2 * noise if parameter.dim() > 1 else 0.5 + 0.1 * noise
    pipeline.save_pretrained(folder)
    (folder / OWN).write_text(json.dumps({"call": dict(call) | ({"height": side, "width": side} if side else {})}))
    return folder

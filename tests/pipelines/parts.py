"""Small tokenizers, text encoders and autoencoders, and what makes a pipeline of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from diffusers import AutoencoderKL, DiffusionPipeline
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel

Made = tuple[DiffusionPipeline, Mapping[str, Any]]
"""A pipeline, and the arguments that each of its calls needs because it is so small."""
SPECIAL = ("<pad>", "</s>", "<s>", "<unk>", "<x1>", "<x2>", "<x3>", "<x4>")
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %} {% endfor %}"
)
SMALL = {"height": 16, "width": 16}
MEDIUM = {"height": 32, "width": 32}


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

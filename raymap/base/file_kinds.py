"""What kind of file it is that holds some weights, by the names and shapes of its tensors: torch is not loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from raymap.base.header import Header


@dataclass(frozen=True)
class Kind:
    """One kind of file: its name with an article, whether such files are adapters, or weights of a base, and whether
    raymap reads them."""

    name: str
    is_adapter: bool = False
    is_base: bool = False
    is_read: bool = True

    @property
    def title(self) -> str:
        """Its name without the article."""
        return self.name.partition(" ")[2]


INVERSION = Kind("a Textual Inversion", True)
OTHERS = (
    (
        r"(lora|loha|lokr|hada).*motion_modules|motion_modules.*lora",
        Kind("a LoRA of a motion module (AnimateDiff)", True, is_read=False),
    ),
    (r"(^|\.)motion_modules\.", Kind("a motion module (AnimateDiff)")),
    (
        r"^(lora_controlnet|control_lora|lllite_)|(^|\.)controlnet_cond_embedding.*lora",
        Kind("a ControlNet-LoRA", True, is_read=False),
    ),
    (r"control_model\.|controlnet|(^|\.)(input_hint_block|zero_convs)\.", Kind("a ControlNet")),
    (r"^(ip_adapter|image_proj)\.|ip_adapter_(double|proj)|\.to_[kv]_ip\.", Kind("an IP-Adapter")),
    (r"^(adapter\.)?body\.\d+\.(block1|in_conv|resnets)", Kind("a T2I-Adapter")),
    (r"^(\d+|layers)\.\d+\.linear", Kind("a hypernetwork")),
    (
        r"^(model\.\d+\.(sub\.|weight)|body\.\d+\.(rdb|conv|weight)|RRDB_trunk|conv_first|params_ema)",
        Kind("an upscaler"),
    ),
    (r"\.(qweight|wscales|wtscale|smooth_factor)(_orig)?$", Kind("a checkpoint in a quantised format (nunchaku)")),
    (r"scaled_fp8|\.scale_(weight|input)$|\.weight_scale$|\.comfy_quant$", Kind("a quantised checkpoint")),
    (r"vision_model\.", Kind("an image encoder (CLIP vision)")),
)
"""Kinds of files that are neither adapters of a base's weights nor checkpoints, by patterns of their tensors' names."""

ADAPTERS = (
    (r"_custom_diffusion|^modifier_token", Kind("a Custom Diffusion", True)),
    (r"\.hada_(w|t)\d", Kind("a LoHa", True)),
    (r"\.lokr_(w|t)\d", Kind("a LoKr", True)),
    (r"\.(a1|a2|b1|b2|bm1|bm2)\.weight$|\.glora", Kind("a GLoRA", True)),
    (r"\.(oft_blocks|oft_diag|oft_R|oft_r)\b|^oft_", Kind("an OFT", True)),
    (r"\.boft_(R|s)\b", Kind("a BOFT", True)),
    (r"\.ia3_l\b|\.on_input$", Kind("an IA3", True)),
    (r"\.(dora_scale|lora_magnitude_vector)\b", Kind("a DoRA", True)),
    (r"\.vera_lambda", Kind("a VeRA", True, is_read=False)),
    (r"\.lora_mid\b", Kind("a LoCon with a Tucker core", True)),
    (r"\.lora_(A|B|a|b|down|up)\b|\.lora(_linear_layer)?\.(down|up)\b|_lora\d?\.(down|up)\b", Kind("a LoRA", True)),
    (r"(^|\.)bundle_emb\.|string_to_param|^e[mn][bp]_params", INVERSION),
    (r"\.(diff|diff_b|w_norm|b_norm|set_weight)$", Kind("a full difference", True)),
    (r"^(lycoris|lora_unet|lora_te\d?|lora_transformer)_", Kind("a LyCORIS of an unknown kind", True, is_read=False)),
)
"""Kinds of adapters, likewise. The first that fits names the file: a DoRA is also a LoRA, for example."""

ENCODER_KEYS = ("clip_l", "clip_g", "t5", "t5xxl", "qwen", "gemma", "llama")
"""What community files of Textual Inversion call a text encoder's vectors."""
AUTOENCODER = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "first_stage_model.", "vae.", "bn.", "loss.")
BESIDE = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.")
"""How names begin that checkpoints have beside those of the denoiser."""
DENOISER = re.compile(
    r"^(model\.diffusion_model\.|diffusion_model\.|unet\.|transformer\.|model\.)?"
    r"((input|output|down|up|double|single|joint|transformer|single_transformer)_blocks|blocks|layers)\.\d"
)
TEXT_ENCODER = re.compile(
    r"^(text_model|text_encoders?|cond_stage_model|conditioner|te\d?|encoder\.block|shared|model)\."
)


def kind_in(header: Header, file: Path | None = None) -> Kind | None:
    """Return the kind of a file; None where nothing tells.

    Args:
        file: its path; the name of a file of learned tokens may say that it is one.
    """
    names = header.patterns
    text = "\n".join(sorted(names))
    for pattern, kind in (*OTHERS, *ADAPTERS):
        if re.search(pattern, text, re.MULTILINE):
            return kind
    if {name.removesuffix("_out") for name in names} & set(ENCODER_KEYS) or names_tokens(header, file):
        return INVERSION
    if any(DENOISER.search(name) for name in names):
        whole = any(name.startswith(BESIDE) for name in names)
        return Kind("a whole checkpoint" if whole else "a denoiser alone", is_base=True)
    if names and all(name.startswith(AUTOENCODER) for name in names):
        text_encoder = any(name.startswith("encoder.block.") for name in names)
        return Kind("a text encoder alone" if text_encoder else "an autoencoder (VAE) alone")
    if names and all(TEXT_ENCODER.search(name) for name in names):
        return Kind("a text encoder alone")
    return None


def names_tokens(header: Header, file: Path | None = None) -> bool:
    """Return whether a file holds learned tokens under their own names, as diffusers writes them, and says so.

    It does by a name in angle brackets, by diffusers' name for such files, by the file's own name, or in its header.
    """
    shapes = header.shapes
    strange = [name for name in shapes if not re.fullmatch(r"<.+>", name, re.DOTALL)]
    if not shapes or any(len(own) > 2 for own in shapes.values()) or any("." in name for name in strange):
        return False
    said = "textual" in header.metadata.get("modelspec.architecture", "")
    said |= file is not None and (file.name.startswith("learned_embeds") or strange == [file.stem] == [*shapes])
    return said or not strange

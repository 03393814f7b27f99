"""What a file of weights is, by the names of its tensors."""

from __future__ import annotations

import pytest

from raymap.base.file_kinds import kind_in
from raymap.base.header import Header

NAMES = {
    "a LoRA": "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
    "a LoHa": "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",
    "a LoKr": "lycoris_blocks_12_attn_to_q.lokr_w1",
    "a GLoRA": "lora_unet_mid_block_attentions_0_proj_in.a1.weight",
    "a DoRA": "unet.mid_block.attentions.0.proj_in.lora_magnitude_vector",
    "an IA3": "base_model.model.mid_block.attentions.0.proj_in.ia3_l",
    "an OFT": "oft_unet_mid_block_attentions_0_proj_in.oft_blocks",
    "a BOFT": "base_model.model.mid_block.proj_in.boft_R.default",
    "a full difference": "lora_unet_mid_block_attentions_0_proj_in.diff",
    "a LoCon with a Tucker core": "lora_unet_mid_block_resnets_0_conv1.lora_mid.weight",
    "a LyCORIS of an unknown kind": "lycoris_mid_block_resnets_0_conv1.new_w1",
    "a Custom Diffusion": "unet.mid_block.attn2.processor.to_k_custom_diffusion.weight",
    "a Textual Inversion": "clip_g",
    "a hypernetwork": "768.0.linear.0.weight",
    "a ControlNet": "controlnet_down_blocks.11.weight",
    "an IP-Adapter": "ip_adapter.31.to_k_ip.weight",
    "a T2I-Adapter": "body.3.block1.weight",
    "a motion module (AnimateDiff)": "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
    "an upscaler": "model.1.sub.0.RDB1.conv1.0.weight",
    "an image encoder (CLIP vision)": "vision_model.encoder.layers.0.layer_norm1.weight",
    "an autoencoder (VAE) alone": "decoder.up.0.block.0.conv1.weight",
    "a text encoder alone": "encoder.block.0.layer.0.SelfAttention.q.weight",
    "a denoiser alone": "model.diffusion_model.input_blocks.4.1.proj_in.weight",
    "a checkpoint in a quantised format (nunchaku)": "transformer_blocks.0.attn.to_q.qweight",
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_file_is_named_as_what_it_is(kind: str) -> None:
    found = kind_in(Header({NAMES[kind]: (4, 4)}, {}))
    assert found is not None
    assert found.name == kind


def test_a_denoiser_with_other_parts_is_a_whole_checkpoint() -> None:
    names = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight")
    found = kind_in(Header(dict.fromkeys(names, (4, 4)), {}))
    assert found is not None
    assert (found.name, found.is_base) == ("a whole checkpoint", True)


@pytest.mark.parametrize("name", ["weight", "a.b.c", "prompt_embeds", "cat"])
def test_a_name_that_tells_nothing_names_no_kind(name: str) -> None:
    assert kind_in(Header({name: (4, 4)}, {})) is None

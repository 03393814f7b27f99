"""What the first publications of transformers call their modules, and which modules of diffusers share each one's rows.

`#` stands for a number; a name behind `~` has its two halves the other way round; a name without modules means another
one here than there, so that it is not placed. A table holds for every size of a model: entries whose modules a base
lacks are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, tuple[str, ...]]


def _within(theirs: str, own: str, layers: Table) -> dict[str, tuple[str, ...]]:
    """Return the entries of layers within a block."""
    return {f"{theirs}.{name}": tuple(f"{own}.{one}" for one in names) for name, names in layers.items()}


QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
EMBEDDERS = ("time_in", "timestep_embedder"), ("vector_in", "text_embedder"), ("guidance_in", "guidance_embedder")

_STREAMS = {
    "img_attn.qkv": QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.qkv": ADDED,
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
}
FLUX = {
    **_within(
        "double_blocks.#",
        "transformer_blocks.#",
        {
            **_STREAMS,
            "img_mlp.0": ("ff.net.0.proj",),
            "img_mlp.2": ("ff.net.2",),
            "img_mod.lin": ("norm1.linear",),
            "txt_mlp.0": ("ff_context.net.0.proj",),
            "txt_mlp.2": ("ff_context.net.2",),
            "txt_mod.lin": ("norm1_context.linear",),
            "processor.qkv_lora1": QKV,
            "processor.proj_lora1": ("attn.to_out.0",),
            "processor.qkv_lora2": ADDED,
            "processor.proj_lora2": ("attn.to_add_out",),
        },
    ),
    **_within(
        "single_blocks.#",
        "single_transformer_blocks.#",
        {
            "linear1": (*QKV, "proj_mlp"),
            "linear2": ("proj_out",),
            "modulation.lin": ("norm.linear",),
            "norm.query_norm": ("attn.norm_q",),
            "norm.key_norm": ("attn.norm_k",),
            "processor.qkv_lora": QKV,
            "processor.proj_lora": ("proj_out",),
        },
    ),
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    **{f"{theirs}.in_layer": (f"time_text_embed.{own}.linear_1",) for theirs, own in EMBEDDERS},
    **{f"{theirs}.out_layer": (f"time_text_embed.{own}.linear_2",) for theirs, own in EMBEDDERS},
    "distilled_guidance_layer.layers.#.in_layer": ("distilled_guidance_layer.layers.#.linear_1",),
    "distilled_guidance_layer.layers.#.out_layer": ("distilled_guidance_layer.layers.#.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("~norm_out.linear",),
}
"""FLUX.1 (https://github.com/black-forest-labs/flux), Chroma, and the layers of XLabs' trainer (`processor`)."""
FLUX_2 = {
    **_within(
        "double_blocks.#",
        "transformer_blocks.#",
        {
            **_STREAMS,
            "img_mlp.0": ("ff.linear_in",),
            "img_mlp.2": ("ff.linear_out",),
            "txt_mlp.0": ("ff_context.linear_in",),
            "txt_mlp.2": ("ff_context.linear_out",),
        },
    ),
    **_within(
        "single_blocks.#",
        "single_transformer_blocks.#",
        {
            "linear1": ("attn.to_qkv_mlp_proj",),
            "linear2": ("attn.to_out",),
            "norm.query_norm": ("attn.norm_q",),
            "norm.key_norm": ("attn.norm_k",),
        },
    ),
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_guidance_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_guidance_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_guidance_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_guidance_embed.guidance_embedder.linear_2",),
    "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
    "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("~norm_out.linear",),
}
SD_3 = {
    **_within(
        "joint_blocks.#",
        "transformer_blocks.#",
        {
            "x_block.attn.qkv": QKV,
            "x_block.attn.proj": ("attn.to_out.0",),
            "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
            "x_block.attn2.proj": ("attn2.to_out.0",),
            "x_block.mlp.fc1": ("ff.net.0.proj",),
            "x_block.mlp.fc2": ("ff.net.2",),
            "x_block.adaLN_modulation.1": ("norm1.linear",),
            "context_block.attn.qkv": ADDED,
            "context_block.attn.proj": ("attn.to_add_out",),
            "context_block.mlp.fc1": ("ff_context.net.0.proj",),
            "context_block.mlp.fc2": ("ff_context.net.2",),
            "context_block.adaLN_modulation.1": ("norm1_context.linear",),
        },
    ),
    "x_embedder.proj": ("pos_embed.proj",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("~norm_out.linear",),
}
"""Stable Diffusion 3 and 3.5 (https://github.com/Stability-AI/sd3.5)."""
STACKS = ("layers", "noise_refiner", "context_refiner")
LUMINA_2 = {
    name: pieces
    for stack in STACKS
    for name, pieces in _within(
        f"{stack}.#",
        f"{stack}.#",
        {
            "attention.qkv": QKV,
            "attention.out": ("attn.to_out.0",),
            "attention.q_norm": ("attn.norm_q",),
            "attention.k_norm": ("attn.norm_k",),
            "feed_forward.w1": ("feed_forward.linear_1",),
            "feed_forward.w2": ("feed_forward.linear_2",),
            "feed_forward.w3": ("feed_forward.linear_3",),
            "adaLN_modulation.1": ("norm1.linear",),
        },
    ).items()
} | {
    "cap_embedder.1": ("time_caption_embed.caption_embedder.1",),
    "t_embedder.mlp.0": ("time_caption_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_caption_embed.timestep_embedder.linear_2",),
    "final_layer.linear": ("norm_out.linear_2",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear_1",),
}
"""Lumina-Image 2.0 (https://github.com/Alpha-VLLM/Lumina-Image-2.0)."""
Z_IMAGE = {
    name: pieces
    for stack in STACKS
    for name, pieces in _within(
        f"{stack}.#",
        f"{stack}.#",
        {
            "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
            "attention.out": ("attention.to_out.0",),
            "attention.q_norm": ("attention.norm_q",),
            "attention.k_norm": ("attention.norm_k",),
        },
    ).items()
} | {
    "x_embedder": ("all_x_embedder.2-1",),
    "final_layer.linear": ("all_final_layer.2-1.linear",),
    "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
}
WAN = {
    **_within(
        "blocks.#",
        "blocks.#",
        {
            **{
                f"{theirs}.{one}": (f"{own}.{module}",)
                for theirs, own in (("self_attn", "attn1"), ("cross_attn", "attn2"))
                for one, module in {
                    "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k",
                    "k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k",
                }.items()
            },
            "ffn.0": ("ffn.net.0.proj",),
            "ffn.2": ("ffn.net.2",),
            "norm3": ("norm2",),
        },
    ),
    "text_embedding.0": ("condition_embedder.text_embedder.linear_1",),
    "text_embedding.2": ("condition_embedder.text_embedder.linear_2",),
    "time_embedding.0": ("condition_embedder.time_embedder.linear_1",),
    "time_embedding.2": ("condition_embedder.time_embedder.linear_2",),
    "time_projection.1": ("condition_embedder.time_proj",),
    "head.head": ("proj_out",),
}  # fmt: skip
"""Wan (https://github.com/Wan-Video/Wan2.1)."""
_CROSSED = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "cross_attn.q_linear": ("attn2.to_q",),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.proj": ("attn2.to_out.0",),
}
PIXART = {
    **_within(
        "blocks.#",
        "transformer_blocks.#",
        {**_CROSSED, "mlp.fc1": ("ff.net.0.proj",), "mlp.fc2": ("ff.net.2",)},
    ),
    "x_embedder.proj": ("pos_embed.proj",),
    "y_embedder.y_proj.fc1": ("caption_projection.linear_1",),
    "y_embedder.y_proj.fc2": ("caption_projection.linear_2",),
    "t_embedder.mlp.0": ("adaln_single.emb.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("adaln_single.emb.timestep_embedder.linear_2",),
    "csize_embedder.mlp.0": ("adaln_single.emb.resolution_embedder.linear_1",),
    "csize_embedder.mlp.2": ("adaln_single.emb.resolution_embedder.linear_2",),
    "ar_embedder.mlp.0": ("adaln_single.emb.aspect_ratio_embedder.linear_1",),
    "ar_embedder.mlp.2": ("adaln_single.emb.aspect_ratio_embedder.linear_2",),
    "t_block.1": ("adaln_single.linear",),
    "final_layer.linear": ("proj_out",),
}
"""PixArt-α and PixArt-Σ (https://github.com/PixArt-alpha/PixArt-sigma)."""
SANA = {
    **_within(
        "blocks.#",
        "transformer_blocks.#",
        {
            **_CROSSED,
            "mlp.inverted_conv.conv": ("ff.conv_inverted",),
            "mlp.depth_conv.conv": ("ff.conv_depth",),
            "mlp.point_conv.conv": ("ff.conv_point",),
        },
    ),
    "x_embedder.proj": ("patch_embed.proj",),
    "y_embedder.y_proj.fc1": ("caption_projection.linear_1",),
    "y_embedder.y_proj.fc2": ("caption_projection.linear_2",),
    "t_embedder.mlp.0": ("time_embed.emb.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_embed.emb.timestep_embedder.linear_2",),
    "t_block.1": ("time_embed.linear",),
    "final_layer.linear": ("proj_out",),
}
"""Sana (https://github.com/NVlabs/Sana)."""
_GATED = {"c_fc1": "linear_1", "c_fc2": "linear_2", "c_proj": "out_projection"}
AURA_FLOW = {
    **_within(
        "double_layers.#",
        "joint_transformer_blocks.#",
        {
            **{f"mlpX.{theirs}": (f"ff.{own}",) for theirs, own in _GATED.items()},
            **{f"mlpC.{theirs}": (f"ff_context.{own}",) for theirs, own in _GATED.items()},
            "modX.1": ("norm1.linear",),
            "modC.1": ("norm1_context.linear",),
            **{f"attn.w2{one}": (f"attn.to_{one}",) for one in "qkv"},
            **{f"attn.w1{one}": (f"attn.add_{one}_proj",) for one in "qkv"},
            "attn.w2o": ("attn.to_out.0",),
            "attn.w1o": ("attn.to_add_out",),
        },
    ),
    **_within(
        "single_layers.#",
        "single_transformer_blocks.#",
        {
            **{f"mlp.{theirs}": (f"ff.{own}",) for theirs, own in _GATED.items()},
            **{f"attn.w1{one}": (f"attn.to_{one}",) for one in "qkv"},
            "attn.w1o": ("attn.to_out.0",),
            "modCX.1": ("norm1.linear",),
        },
    ),
    "init_x_linear": ("pos_embed.proj",),
    "cond_seq_linear": ("context_embedder",),
    "t_embedder.mlp.0": ("time_step_proj.linear_1",),
    "t_embedder.mlp.2": ("time_step_proj.linear_2",),
    "final_linear": ("proj_out",),
    "modF.1": ("~norm_out.linear",),
}
"""AuraFlow and Pony V7 (https://github.com/cloneofsimo/minRF)."""
HUNYUAN_DIT = {
    **_within(
        "blocks.#",
        "blocks.#",
        {
            "attn1.Wqkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
            "attn1.out_proj": ("attn1.to_out.0",),
            "attn2.q_proj": ("attn2.to_q",),
            "attn2.kv_proj": ("attn2.to_k", "attn2.to_v"),
            "attn2.out_proj": ("attn2.to_out.0",),
            **{f"{attn}.{one}_norm": (f"{attn}.norm_{one}",) for attn in ("attn1", "attn2") for one in "qk"},
            "mlp.fc1": ("ff.net.0.proj",),
            "mlp.fc2": ("ff.net.2",),
            "default_modulation.1": ("norm1.linear",),
            "norm2": (),
            "norm3": (),
        },
    ),
    "x_embedder.proj": ("pos_embed.proj",),
    "t_embedder.mlp.0": ("time_extra_emb.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_extra_emb.timestep_embedder.linear_2",),
    "extra_embedder.0": ("time_extra_emb.extra_embedder.linear_1",),
    "extra_embedder.2": ("time_extra_emb.extra_embedder.linear_2",),
    "mlp_t5.0": ("text_embedder.linear_1",),
    "mlp_t5.2": ("text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("~norm_out.linear",),
}
"""HunyuanDiT (https://github.com/Tencent/HunyuanDiT), whose second and third norms are called each other's names."""
TABLES: Mapping[str, Table] = {
    "StableDiffusion3Pipeline": SD_3,
    "FluxPipeline": FLUX,
    "ChromaPipeline": FLUX,
    "Flux2Pipeline": FLUX_2,
    "Flux2KleinPipeline": FLUX_2,
    "ZImagePipeline": Z_IMAGE,
    "Lumina2Pipeline": LUMINA_2,
    "WanPipeline": WAN,
    "PixArtAlphaPipeline": PIXART,
    "PixArtSigmaPipeline": PIXART,
    "SanaPipeline": SANA,
    "AuraFlowPipeline": AURA_FLOW,
    "HunyuanDiTPipeline": HUNYUAN_DIT,
}
"""By the class of the family's pipeline; the communities of other families use diffusers' names."""

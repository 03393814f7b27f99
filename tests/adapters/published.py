"""Published models in their real sizes, without weights, and what the communities' files call their modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers
import torch

from raymap.base.families.registry import FAMILIES
from raymap.base.folder import OUTLINES
from raymap.base.model import Base
from raymap.base.parts import Parts
from raymap.base.skeleton import Skeleton

Modules = Mapping[str, tuple[int, ...]]
"""The shapes of a file's modules, by names as the file spells them."""

BUILT: dict[str, tuple[str, Callable[[], Any]]] = {
    "lumina2": ("Lumina2Pipeline", lambda: diffusers.Lumina2Transformer2DModel()),
    "wan2.1-1.3b": (
        "WanPipeline",
        lambda: diffusers.WanTransformer3DModel(
            num_layers=30, num_attention_heads=12, attention_head_dim=128, ffn_dim=8960
        ),
    ),
    "pixart-sigma": (
        "PixArtSigmaPipeline",
        lambda: diffusers.PixArtTransformer2DModel(sample_size=128, out_channels=8, norm_type="ada_norm_single"),
    ),
    "sana": ("SanaPipeline", lambda: diffusers.SanaTransformer2DModel()),
    "hunyuan-dit": (
        "HunyuanDiTPipeline",
        lambda: diffusers.HunyuanDiT2DModel(
            in_channels=4, patch_size=2, sample_size=128, num_layers=40, hidden_size=1408, mlp_ratio=4.3637,
            activation_fn="gelu-approximate", cross_attention_dim=1024, pooled_projection_dim=1024, learn_sigma=True,
        ),
    ),
    "aura-flow": ("AuraFlowPipeline", lambda: diffusers.AuraFlowTransformer2DModel()),
    "cogview4": ("CogView4Pipeline", lambda: diffusers.CogView4Transformer2DModel()),
    "hunyuan-image": ("HunyuanImagePipeline", lambda: diffusers.HunyuanImageTransformer2DModel()),
}  # fmt: skip
"""Models of which raymap packages no outline: their pipelines' classes and their denoisers."""
OUTLINED = ("sd15", "sd21", "sdxl", "sd3-medium", "sd35-medium", "sd35-large", "flux1-dev", "chroma", "flux2-klein-4b",
            "qwen-image", "z-image")  # fmt: skip


@cache
def skeleton_of(name: str) -> Skeleton:
    if name in OUTLINED:
        return Base.at(OUTLINES / name).skeleton
    pipeline, build = BUILT[name]
    with torch.device("meta"):
        denoiser = build()
    shapes = {f"transformer.{key}": tuple(value.shape) for key, value in denoiser.named_parameters()}
    return Skeleton(FAMILIES[pipeline], Parts(("transformer",)), shapes, {}, {})


def own(skeleton: Skeleton, *components: str) -> dict[str, tuple[int, ...]]:
    """Return the base's own modules that have a matrix or kernel: those of components, or of the denoiser."""
    wanted = components or (skeleton.denoiser,)
    return {
        name.removesuffix(".weight"): shape
        for name, shape in skeleton.shapes.items()
        if name.partition(".")[0] in wanted
        and name.endswith(".weight")
        and len(shape) > 1
        and "embedding.w" not in name
    }


def bare(skeleton: Skeleton) -> Modules:
    return {name.partition(".")[2]: shape for name, shape in own(skeleton).items()}


def dotted(prefix: str, modules: Modules) -> Modules:
    return {prefix + name: shape for name, shape in modules.items()}


def flat(prefix: str, modules: Modules) -> Modules:
    return {prefix + name.replace(".", "_"): shape for name, shape in modules.items()}


def texts(skeleton: Skeleton) -> Modules:
    """Return kohya's names of the text encoders' modules."""
    numbered = len(skeleton.parts.encoders) > 1
    found: dict[str, tuple[int, ...]] = {}
    for number, encoder in enumerate(skeleton.parts.encoders, 1):
        t5 = any(".SelfAttention." in name for name in skeleton.shapes if name.startswith(f"{encoder}."))
        prefix = "lora_te3_" if t5 else f"lora_te{number}_" if numbered else "lora_te_"
        for name, shape in own(skeleton, encoder).items():
            rest = name.partition(".")[2]
            start = "" if t5 or rest.startswith("text_model.") or "projection" in rest else "text_model."
            found[prefix + (start + rest).replace(".", "_")] = shape
    return found


def unet(skeleton: Skeleton) -> Modules:
    """Return CompVis's names of a UNet of four or three levels, two resnets each, written from its own loops."""
    shapes = bare(skeleton)
    levels = len({name.split(".")[1] for name in shapes if name.startswith("down_blocks.")})
    resnet = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3",
              "conv_shortcut": "skip_connection"}  # fmt: skip
    blocks = {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
              "mid_block.resnets.1": "middle_block.2"}  # fmt: skip
    for level in range(levels):
        for layer in range(2):
            at = f"input_blocks.{3 * level + layer + 1}"
            blocks |= {
                f"down_blocks.{level}.resnets.{layer}": f"{at}.0",
                f"down_blocks.{level}.attentions.{layer}": f"{at}.1",
            }
        for layer in range(3):
            at = f"output_blocks.{3 * level + layer}"
            blocks |= {
                f"up_blocks.{level}.resnets.{layer}": f"{at}.0",
                f"up_blocks.{level}.attentions.{layer}": f"{at}.1",
            }
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        block = next((known for known in blocks if name.startswith(f"{known}.")), None)
        if block:
            inner = name.removeprefix(f"{block}.")
            found[f"{blocks[block]}.{resnet.get(inner, inner)}"] = shape
        elif "downsamplers" in name:
            found[f"input_blocks.{3 * int(name.split('.')[1]) + 3}.0.op"] = shape
        elif "upsamplers" in name:
            level = int(name.split(".")[1])
            attends = any(other.startswith(f"up_blocks.{level}.attentions.") for other in shapes)
            found[f"output_blocks.{3 * level + 2}.{2 if attends else 1}.conv"] = shape
        else:
            ends = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
                    "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
                    "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip
            found[ends[name]] = shape
    return found


def flux(
    skeleton: Skeleton, doubles: int = 19, singles: int = 38, modulated: bool = True, more: bool = True
) -> Modules:
    """Return Black Forest Labs' names of FLUX.1's modules, and Chroma's, which has no modulations."""
    d = 3072
    found: dict[str, tuple[int, ...]] = {}
    for i in range(doubles):
        for s in ("img", "txt"):
            at = f"double_blocks.{i}.{s}"
            found |= {
                f"{at}_attn.qkv": (3 * d, d),
                f"{at}_attn.proj": (d, d),
                f"{at}_mlp.0": (4 * d, d),
                f"{at}_mlp.2": (d, 4 * d),
            }
            if modulated:
                found[f"{at}_mod.lin"] = (6 * d, d)
    for i in range(singles):
        found |= {f"single_blocks.{i}.linear1": (7 * d, d), f"single_blocks.{i}.linear2": (d, 5 * d)}
        if modulated:
            found[f"single_blocks.{i}.modulation.lin"] = (3 * d, d)
    ends = {"img_in": (d, 64), "txt_in": (d, 4096), "guidance_in.in_layer": (d, 256), "guidance_in.out_layer": (d, d),
            "time_in.in_layer": (d, 256), "time_in.out_layer": (d, d), "vector_in.in_layer": (d, 768),
            "vector_in.out_layer": (d, d), "final_layer.linear": (64, d),
            "final_layer.adaLN_modulation.1": (2 * d, d)}  # fmt: skip
    return found | (ends if more else {})


def chroma(skeleton: Skeleton) -> Modules:
    return flux(skeleton, modulated=False, more=False)


def flux2(skeleton: Skeleton) -> Modules:
    d, (doubles, singles) = 3072, (5, 20)
    found: dict[str, tuple[int, ...]] = {}
    for i in range(doubles):
        for s in ("img", "txt"):
            at = f"double_blocks.{i}.{s}"
            found |= {
                f"{at}_attn.qkv": (3 * d, d),
                f"{at}_attn.proj": (d, d),
                f"{at}_mlp.0": (6 * d, d),
                f"{at}_mlp.2": (d, 3 * d),
            }
    for i in range(singles):
        found |= {f"single_blocks.{i}.linear1": (9 * d, d), f"single_blocks.{i}.linear2": (d, 4 * d)}
    return found


def xlabs(skeleton: Skeleton) -> Modules:
    d = 3072
    at = [f"double_blocks.{i}.processor" for i in range(19)]
    doubles = {
        f"{p}.{one}_lora{n}": (3 * d if one == "qkv" else d, d) for p in at for one in ("qkv", "proj") for n in (1, 2)
    }
    return doubles


def sd3(skeleton: Skeleton) -> Modules:
    """Return Stability's names of Stable Diffusion 3's modules."""
    shapes = bare(skeleton)
    d = shapes["transformer_blocks.0.attn.to_q"][0]
    blocks = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("transformer_blocks."))
    found: dict[str, tuple[int, ...]] = {}
    for i in range(blocks):
        for side in ("x", "context"):
            at, last = f"joint_blocks.{i}.{side}_block", side == "context" and i == blocks - 1
            found[f"{at}.attn.qkv"] = (3 * d, d)
            dual = side == "x" and f"transformer_blocks.{i}.attn2.to_q" in shapes
            found[f"{at}.adaLN_modulation.1"] = ((2 if last else 9 if dual else 6) * d, d)
            if dual:
                found |= {f"{at}.attn2.qkv": (3 * d, d), f"{at}.attn2.proj": (d, d)}
            if not last:
                found |= {f"{at}.attn.proj": (d, d), f"{at}.mlp.fc1": (4 * d, d), f"{at}.mlp.fc2": (d, 4 * d)}
    return found | {"x_embedder.proj": (d, 16, 2, 2), "context_embedder": (d, 4096), "t_embedder.mlp.0": (d, 256),
                    "t_embedder.mlp.2": (d, d), "y_embedder.mlp.0": (d, 2048), "y_embedder.mlp.2": (d, d),
                    "final_layer.linear": (64, d), "final_layer.adaLN_modulation.1": (2 * d, d)}  # fmt: skip


def lumina(skeleton: Skeleton) -> Modules:
    shapes = bare(skeleton)
    d = shapes["layers.0.attn.to_q"][1]
    found: dict[str, tuple[int, ...]] = {}
    for stack in ("layers", "noise_refiner", "context_refiner"):
        for i in sorted({int(name.split(".")[1]) for name in shapes if name.startswith(f"{stack}.")}):
            at = f"{stack}.{i}"
            found |= {f"{at}.attention.qkv": (d + 2 * 768, d), f"{at}.attention.out": (d, d)}
            found |= {f"{at}.feed_forward.w{j}": shapes[f"{at}.feed_forward.linear_{j}"] for j in (1, 2, 3)}
            if stack != "context_refiner":
                found[f"{at}.adaLN_modulation.1"] = shapes[f"{at}.norm1.linear"]
    return found


def wan(skeleton: Skeleton) -> Modules:
    d = 1536
    found: dict[str, tuple[int, ...]] = {}
    for i in range(30):
        for attention in ("self_attn", "cross_attn"):
            found |= {f"blocks.{i}.{attention}.{one}": (d, d) for one in "qkvo"}
        found |= {f"blocks.{i}.ffn.0": (8960, d), f"blocks.{i}.ffn.2": (d, 8960)}
    return found


def crossed(skeleton: Skeleton) -> Modules:
    """Return the names of PixArt's and Sana's modules, whose text has an attention of its own."""
    shapes = bare(skeleton)
    found: dict[str, tuple[int, ...]] = {}
    for i in sorted({int(name.split(".")[1]) for name in shapes if name.startswith("transformer_blocks.")}):
        at, own = f"blocks.{i}", f"transformer_blocks.{i}"
        d = shapes[f"{own}.attn1.to_q"][0]
        found |= {f"{at}.attn.qkv": (3 * d, d), f"{at}.attn.proj": (d, d), f"{at}.cross_attn.q_linear": (d, d),
                  f"{at}.cross_attn.kv_linear": (2 * d, d), f"{at}.cross_attn.proj": (d, d)}  # fmt: skip
        if f"{own}.ff.net.2" in shapes:
            found |= {f"{at}.mlp.fc1": (4 * d, d), f"{at}.mlp.fc2": (d, 4 * d)}
        else:
            kernels = ("inverted", "depth", "point")
            found |= {f"{at}.mlp.{one}_conv.conv": shapes[f"{own}.ff.conv_{one}"] for one in kernels}
    return found


def aura_flow(skeleton: Skeleton) -> Modules:
    d, wide = 3072, 8192
    shapes = bare(skeleton)
    found: dict[str, tuple[int, ...]] = {"cond_seq_linear": (d, 2048), "modF.1": (2 * d, d), "final_linear": (16, d)}
    for stack, own in (("double_layers", "joint_transformer_blocks"), ("single_layers", "single_transformer_blocks")):
        for i in sorted({int(name.split(".")[1]) for name in shapes if name.startswith(f"{own}.")}):
            at, double = f"{stack}.{i}", stack == "double_layers"
            found |= {f"{at}.attn.w{n}{one}": (d, d) for one in "qkvo" for n in ((1, 2) if double else (1,))}
            for mlp in ("mlpX", "mlpC") if double else ("mlp",):
                found |= {
                    f"{at}.{mlp}.c_fc1": (wide, d),
                    f"{at}.{mlp}.c_fc2": (wide, d),
                    f"{at}.{mlp}.c_proj": (d, wide),
                }
            found |= {f"{at}.{mod}.1": (6 * d, d) for mod in (("modX", "modC") if double else ("modCX",))}
    return found


def hunyuan_dit(skeleton: Skeleton) -> Modules:
    d, shapes = 1408, bare(skeleton)
    found: dict[str, tuple[int, ...]] = {}
    for i in range(40):
        at = f"blocks.{i}"
        found |= {f"{at}.attn1.Wqkv": (3 * d, d), f"{at}.attn1.out_proj": (d, d), f"{at}.attn2.q_proj": (d, d),
                  f"{at}.attn2.kv_proj": (2 * d, 1024), f"{at}.attn2.out_proj": (d, d),
                  f"{at}.mlp.fc1": shapes[f"{at}.ff.net.0.proj"], f"{at}.mlp.fc2": shapes[f"{at}.ff.net.2"],
                  f"{at}.default_modulation.1": shapes[f"{at}.norm1.linear"]}  # fmt: skip
    return found


def z_image(skeleton: Skeleton) -> Modules:
    d = 3840
    found: dict[str, tuple[int, ...]] = {}
    for i in range(30):
        found |= {f"layers.{i}.attention.qkv": (3 * d, d), f"layers.{i}.attention.out": (d, d)}
    return found


Names = Callable[[Skeleton], Modules]


def dots(prefix: str, names: Names, *marks: str) -> Names:
    """Return names with a prefix before them; of those that have one of the marks, if there are any."""

    def named(skeleton: Skeleton) -> Modules:
        given = names(skeleton).items()
        return dotted(prefix, {name: shape for name, shape in given if not marks or any(m in name for m in marks)})

    return named


def underscores(prefix: str, names: Names) -> Names:
    return lambda skeleton: flat(prefix, names(skeleton))


@dataclass(frozen=True)
class Layout:
    """One community's files for one model: what they are called, their modules, whose names these are, how keys end."""

    model: str
    title: str
    modules: Callable[[Skeleton], Modules]
    group: str
    halves: tuple[str, str] = ("lora_A", "lora_B")
    alpha: bool = False


OWN, FIRSTS, TEXT, FEW = "diffusers' names", "names of the first publication", "text encoders", "some layers"
KOHYA: tuple[tuple[str, str], bool] = ("lora_down", "lora_up"), True
"""How the keys of kohya's and LyCORIS's files end, and that they have an alpha."""


def diffusers_named(model: str) -> tuple[Layout, ...]:
    """Return the layouts that every model has, by diffusers' own names of its modules."""
    part = "unet" if model.startswith(("sd1", "sd2", "sdxl")) else "transformer"
    return (
        *(Layout(model, f"`{prefix}`", dots(prefix, bare), OWN) for prefix in (f"{part}.", "", *WRAPPERS)),
        Layout(model, f"`{part}.` with alpha", own, OWN, *KOHYA),
        *(Layout(model, f"`{prefix}`", underscores(prefix, bare), OWN, *KOHYA) for prefix in FLAT),
    )


WRAPPERS = ("base_model.model.", "diffusion_model.")
FLAT = ("lora_unet_", "lora_transformer_", "lycoris_")
FIRST: dict[str, tuple[str, Names]] = {
    **dict.fromkeys(("sd15", "sd21", "sdxl"), ("input_blocks", unet)),
    **dict.fromkeys(("sd3-medium", "sd35-medium", "sd35-large"), ("joint_blocks", sd3)),
    "flux1-dev": ("double_blocks", flux),
    "chroma": ("double_blocks", chroma),
    "flux2-klein-4b": ("double_blocks", flux2),
    "z-image": ("layers.….qkv", z_image),
    "lumina2": ("layers.….qkv", lumina),
    "wan2.1-1.3b": ("blocks.….self_attn", wan),
    "pixart-sigma": ("blocks.….qkv", crossed),
    "sana": ("blocks.….qkv", crossed),
    "aura-flow": ("double_layers", aura_flow),
    "hunyuan-dit": ("blocks.….Wqkv", hunyuan_dit),
}
"""The names of the first publications, which kohya's, musubi's and ComfyUI's files have."""


def layouts() -> tuple[Layout, ...]:
    """Return all layouts of all models."""
    found = [layout for model in (*OUTLINED, *BUILT) for layout in diffusers_named(model)]
    found += [Layout(model, "`lora_te…_`", texts, TEXT, *KOHYA) for model in OUTLINED]
    for model, (block, names) in FIRST.items():
        for prefix in ("", "model.diffusion_model.", *WRAPPERS):
            found.append(Layout(model, f"`{prefix}{block}…`", dots(prefix, names), FIRSTS))
        found += [
            Layout(model, f"`lora_unet_{block}_…`", underscores("lora_unet_", names), FIRSTS, *KOHYA),
            Layout(model, f"`lycoris_{block}_…`", underscores("lycoris_", names), FIRSTS, *KOHYA),
            Layout(model, f"a few layers of `diffusion_model.{block}…`", dots("diffusion_model.", names, ".1."), FEW),
        ]
    return *found, Layout("flux1-dev", "`double_blocks.….processor` of XLabs", xlabs, FEW, ("down", "up"))

"""FLOPs that are counted from shapes and configurations are those that torch counts in the pipelines themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raymap.base.families.family import Family
from raymap.base.families.flux import FLUX
from raymap.base.flops.count import count_flops
from raymap.base.model import Base
from raymap.base.pipeline import denoiser_of, load
from raymap.base.shapes import shapes_in
from raymap.drawing.sampling import call_of
from raymap.study.model import SamplerSettings
from tests.pipelines import TINY, save_tiny


@dataclass(frozen=True)
class Drawable:
    """A tiny base, loaded."""

    name: str
    base: Base
    pipeline: DiffusionPipeline


@pytest.fixture(scope="module", params=TINY)
def drawable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawable:
    base = Base.at(save_tiny(request.param, tmp_path_factory.mktemp("base")))
    return Drawable(request.param, base, load(base.folder))


class _SeenError(Exception):
    """What stops a drawing once its denoiser is called."""


def counted(call: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """Return the FLOPs of a call; attention is computed by plain products, since torch does not count a CPU's own."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(*args, **kwargs)
    return float(counter.get_total_flops())


def first_call(drawn: Drawable, prompt: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with which a pipeline that draws one image without guidance first calls its denoiser."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        seen.append((args, dict(kwargs)))
        raise _SeenError

    family = drawn.base.family
    scale = family.scale if family.unguided is None else family.unguided
    handle = denoiser_of(drawn.pipeline).register_forward_pre_hook(note, with_kwargs=True)
    call = call_of(drawn.pipeline, [prompt], (0,), SamplerSettings(steps=1, guidance_scale=scale))
    with torch.no_grad(), pytest.raises(_SeenError):
        drawn.pipeline(**call)
    handle.remove()
    return seen[0]


def reading(family: Family, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Family:
    """Return a family with the number of tokens of this very prompt, where it depends on the prompt."""
    match name:
        case "qwen_image":
            return replace(family, text_tokens=kwargs["encoder_hidden_states"].shape[1])
        case "z_image":  # which fills prompts up to multiples of 32 tokens
            return replace(family, text_tokens=-(-len(args[2][0]) // 32) * 32)
        case "lumina_2":
            return replace(family, joint_tokens=int(kwargs["encoder_attention_mask"].sum()))
        case "cog_view_4":
            return replace(family, text_tokens=kwargs["encoder_hidden_states"].shape[1])
    return family


@pytest.mark.parametrize("prompt", ["a cat", "a dog on a sofa in the rain"])
def test_a_denoisers_flops_are_those_that_torch_counts(drawable: Drawable, prompt: str) -> None:
    args, kwargs = first_call(drawable, prompt)
    base = replace(drawable.base, family=reading(drawable.base.family, drawable.name, args, kwargs))
    expected = counted(denoiser_of(drawable.pipeline), *args, **kwargs)
    assert base.flops().denoiser == pytest.approx(expected, rel=0.03)


def test_a_decoders_flops_are_those_that_torch_counts(drawable: Drawable) -> None:
    base, vae = drawable.base, drawable.pipeline.vae
    first = next(p for name, p in vae.named_parameters() if name.startswith("decoder.conv_in."))
    frames = () if first.dim() == 4 else (1,)
    latents = torch.zeros(1, first.shape[1], *frames, *(side // base.pixels for side in base.size))
    assert base.flops().decoder == pytest.approx(counted(vae.decode, latents), rel=0.03)


def test_flops_of_flux_are_the_published_ones() -> None:
    """59.5 TFLOP without attention's products; these are 2·2·(4096 + 512)²·3072 in each of 57 layers."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
    found = count_flops(FLUX, shapes_in(transformer), {}, (128, 128), 512, transformer.config)
    assert found.denoiser == pytest.approx(59.5e12 + 57 * 4 * 4608**2 * 3072, rel=0.01)

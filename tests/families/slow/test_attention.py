"""Attention on any family: both models draw as by themselves, and probabilities are those of the layers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen
from torch import nn

from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter, LowRank, Token
from raymap.base.families.family import Family
from raymap.base.model import Base
from raymap.base.pipeline import denoiser_of, load
from raymap.drawing.attention.denoise import Comparer
from raymap.drawing.attention.lockstep import Pass, lockstep
from raymap.drawing.attention.tokens import read_prompt
from raymap.drawing.attention.watch import TextAttention, text_attentions, watched
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import call_of
from raymap.study.model import AttentionSettings, SamplerSettings
from tests.pipelines import save_tiny

KINDS = ("stable_diffusion_xl", "pixart_sigma", "wan", "stable_diffusion_3", "flux", "qwen_image")
PROMPTS = ["a red cup", "a cat on a table"]
SEEDS = (1, 2)
SAMPLER = SamplerSettings(steps=3, guidance_scale=4.0)


@dataclass(frozen=True)
class Drawn:
    """A family's tiny base, with a LoRA, the LoRA's null and a token resident."""

    base: Base
    pipeline: DiffusionPipeline
    store: AdapterStore
    encoder: PromptEncoder

    @property
    def family(self) -> Family:
        return self.base.family

    @property
    def layers(self) -> dict[str, TextAttention]:
        return text_attentions(denoiser_of(self.pipeline), self.family)

    def batch(self, *prompts: str) -> list[str]:
        return [prompts[0]] * 2 if self.family.one_prompt else list(prompts)

    def arguments(self, *prompts: str) -> Callable[[], dict[str, Any]]:
        return lambda: call_of(self.pipeline, self.batch(*prompts), SEEDS, SAMPLER)

    @torch.no_grad()
    def images(self, adapter: str | None, *prompts: str) -> torch.Tensor:
        """Draw by the pipeline's own call."""
        self.store.swap(adapter)
        with self.encoder.in_place():
            found: torch.Tensor = self.pipeline(**self.arguments(*prompts)())[0]
        return found

    def comparer(self, **settings: Any) -> Comparer:
        reduced = AttentionSettings(bins=2, **settings)
        return Comparer(self.pipeline, self.store, self.encoder, SAMPLER, reduced, 2, self.base.size)


@pytest.fixture(scope="module", params=KINDS)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    torch.set_num_threads(1)
    folder = save_tiny(request.param, tmp_path_factory.mktemp(request.param) / "base")
    base, pipeline = Base.at(folder), load(folder)
    store = AdapterStore(pipeline)
    random = torch.Generator().manual_seed(0)
    shifting, null = {}, {}
    for name, module in denoiser_of(pipeline).named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("to_q", "to_k", "to_v", "add_k_proj")):
            down = torch.randn(2, module.in_features, generator=random) / module.in_features
            up = torch.randn(module.out_features, 2, generator=random)
            weight = f"{base.parts.denoisers[0]}.{name}.weight"
            shifting[weight], null[weight] = LowRank(down, up, 1.0), LowRank(down, torch.zeros_like(up), 1.0)
    vectors = {name: 30 * torch.randn(2, wide, generator=random) for name, wide in base.skeleton.text_widths.items()}
    store.add("lora", Adapter(shifting))
    store.add("null", Adapter(null))
    store.add("token", Adapter({}, (Token("<star>", vectors),)))
    return Drawn(base, pipeline, store, PromptEncoder(pipeline, store))


def test_both_calls_draw_in_turn_what_each_draws_by_itself(drawn: Drawn) -> None:
    base, own = drawn.images(None, *PROMPTS), drawn.images("lora", *PROMPTS)
    order: list[tuple[bool, int, int]] = []

    def note(one: Pass) -> Any:
        order.append((one.adapted, one.step, one.number))
        return one.run()

    arguments = drawn.arguments(*PROMPTS)
    found = lockstep(drawn.pipeline, drawn.encoder, drawn.store, "lora", arguments, note)
    assert torch.equal(found[0][0], base)
    assert torch.equal(found[1][0], own)
    assert not torch.equal(own, base)
    passes = len(order) // 6
    assert order == [(bool(k % 2), k // 2 // passes, k // 2 % passes) for k in range(6 * passes)]
    assert torch.equal(drawn.images(None, *PROMPTS), base)


def test_each_call_encodes_under_its_own_tokens(drawn: Drawn) -> None:
    triggered = "a <star> on a table"
    base, own = drawn.images(None, triggered, triggered), drawn.images("token", triggered, triggered)
    fresh = PromptEncoder(drawn.pipeline, drawn.store)
    found = lockstep(drawn.pipeline, fresh, drawn.store, "token", drawn.arguments(triggered, triggered))
    assert torch.equal(found[0][0], base)
    assert torch.equal(found[1][0], own)
    assert not torch.equal(own, base)


def test_a_null_adapter_shifts_attention_by_exactly_nothing(drawn: Drawn) -> None:
    prompts = drawn.batch(*PROMPTS)
    comparer = drawn.comparer()
    null, latents = comparer.compare("null", prompts, SEEDS)
    assert not null.shifts[..., 0].any()
    assert not null.shifts[..., 2].any()
    assert torch.equal(latents["base"], latents["free"])
    moved, latents = comparer.compare("lora", prompts, SEEDS)
    assert (moved.shifts[..., 0].sum(-1) > 0).all()
    assert not np.array_equal(moved.shifts[0], moved.shifts[1])
    assert not torch.equal(latents["base"], latents["free"])
    assert moved.heat is not None
    assert moved.heat.base.max() > 0
    assert drawn.base.heads <= min(_heads(layer) for layer in drawn.layers.values())


@pytest.mark.parametrize("protocol", ["free", "forced"])
def test_a_protocol_alone_says_what_it_says_beside_the_other(drawn: Drawn, protocol: str) -> None:
    prompts = drawn.batch(*PROMPTS)
    both, _ = drawn.comparer().compare("lora", prompts, SEEDS)
    alone, _ = drawn.comparer(protocols=(protocol,)).compare("lora", prompts, SEEDS)
    assert np.array_equal(alone.shifts[0], both.shifts[("free", "forced").index(protocol)])


def test_probabilities_are_those_that_follow_from_the_layers_weights(drawn: Drawn) -> None:
    """softmax(QKᵀ/√d + mask) by numpy in float64 from what each layer gets, norms and rotations as its family has."""
    drawn.store.restore()
    layers = list(drawn.layers.values())
    seen: dict[int, dict[str, Any]] = {}
    maps: dict[int, torch.Tensor] = {}

    def take(layer: int, found: torch.Tensor) -> None:
        maps.setdefault(layer, found)

    def noted(number: int) -> Callable[..., None]:
        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
            seen.setdefault(number, {**bound, **bound.pop("kwargs", {}), **bound.pop("cross_attention_kwargs", {})})

        return note

    hooks = [layer.module.register_forward_pre_hook(noted(k), with_kwargs=True) for k, layer in enumerate(layers)]
    prompts = drawn.batch(*PROMPTS)
    with watched(denoiser_of(drawn.pipeline), drawn.family, slice(-2, None), take):
        drawn.images(None, *PROMPTS)
    for hook in hooks:
        hook.remove()
    reading = read_prompt(drawn.pipeline, drawn.store, SAMPLER, prompts[0])
    assert len(maps) == len(layers) == len(seen)
    for number, layer in enumerate(layers):
        expected = _expected(layer.module, seen[number], drawn.family)[-2:]
        found = maps[number].double().numpy()
        assert found.shape == expected.shape
        assert found.shape[-1] == len(reading.classes)
        assert np.abs(found - expected).max() <= 1e-5
        sums = found.sum(-1)
        assert sums.max() <= 1 + 1e-5
        assert sums.min() > (0.999 if drawn.family.text_first is None else 0)


def test_words_are_where_the_denoiser_reads_them(drawn: Drawn) -> None:
    """Another word at the end of a prompt changes the text encoders' tokens at its own place, and not before it."""
    one, other = (read_prompt(drawn.pipeline, drawn.store, SAMPLER, f"a red {word}") for word in ("cup", "car"))
    pieces = "".join(one.pieces).replace("</w>", " ").replace("Ġ", " ").strip()
    assert pieces.replace(" ", "") == "aredcup"
    assert one.positions == tuple(range(one.positions[0], one.positions[0] + len(one.pieces)))
    same = [a == b for a, b in zip(one.pieces, other.pieces, strict=True)]
    assert same[0]
    assert not same[-1]
    assert all(one.classes[k] == 0 for k in one.positions)
    assert len(one.timesteps) == 3


def _heads(layer: TextAttention) -> int:
    module: Any = layer.module
    heads: int = module.heads
    return heads


def _expected(module: Any, given: dict[str, Any], family: Family) -> np.ndarray:
    """Compute the probabilities with which image positions attend to text: (N, heads, positions, tokens)."""
    heads = module.heads

    def parts(layer: Any, norm: Any, x: torch.Tensor) -> torch.Tensor:
        """Return queries or keys (N, positions, heads, width); Wan normalises all heads together."""
        whole = layer(x)
        if norm is not None and norm.weight.shape[-1] == whole.shape[-1]:
            whole, norm = norm(whole), None
        divided = whole.unflatten(-1, (heads, -1))
        return divided if norm is None else norm(divided)

    with torch.no_grad():
        image, text = given["hidden_states"], given["encoder_hidden_states"]
        query = parts(module.to_q, module.norm_q, image)
        if family.text_first is None:
            key = parts(module.to_k, module.norm_k, text)
            columns = slice(None)
        else:
            own = parts(module.to_k, module.norm_k, image)
            added = parts(module.add_k_proj, module.norm_added_k, text)
            turn: Any = given.get("image_rotary_emb")
            if isinstance(module, FluxAttention):
                turn_of = [tuple(x[k] for x in turn) for k in (slice(text.shape[1]), slice(text.shape[1], None))]
                added = apply_rotary_emb(added, turn_of[0], sequence_dim=1)
                query, own = (apply_rotary_emb(x, turn_of[1], sequence_dim=1) for x in (query, own))
            elif turn is not None:
                added = apply_rotary_emb_qwen(added, turn[1], use_real=False)
                query, own = (apply_rotary_emb_qwen(x, turn[0], use_real=False) for x in (query, own))
            key = torch.cat([added, own] if family.text_first else [own, added], dim=1)
            tokens = text.shape[1]
            columns = slice(tokens) if family.text_first else slice(-tokens, None)
    q, k = (x.permute(0, 2, 1, 3).double().numpy() for x in (query, key))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    mask = given.get("attention_mask")
    if mask is not None:
        scores = scores + mask.double().numpy()[:, None]  # PixArt's bias (N, 1, tokens)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities: np.ndarray = weights / weights.sum(-1, keepdims=True)
    return probabilities[..., columns]

"""Every family is drawn with as its own pipeline draws, and adapters act on it and leave again without a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from raymap.adapters.resident import AdapterStore, weights_of
from raymap.adapters.update import Adapter, LowRank, Token, Update
from raymap.base.families.family import Family
from raymap.base.model import Base
from raymap.base.pipeline import denoiser_of, load
from raymap.drawing.attention.denoise import Comparer
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.proof import unchanged
from raymap.drawing.sampling import call_of, draw
from raymap.study.model import AttentionSettings, SamplerSettings
from tests.pipelines import TINY, save_tiny

PROMPTS = ["a red cup on a table", "a cat", "blue stripes", "a city at night"]
TRIGGERED = "a <star> on a table"
SEEDS = (0, 1, 2, 3)
NEAR = 2e-5
"""How far an image may be from its pipeline's own: prompts are encoded alone, and CLIP rounds otherwise in a batch."""


@dataclass(frozen=True)
class Drawn:
    """A family's tiny base, with a LoRA, the LoRA's null and a token of two vectors resident."""

    base: Base
    pipeline: DiffusionPipeline
    store: AdapterStore
    encoder: PromptEncoder
    sampler: SamplerSettings

    @property
    def family(self) -> Family:
        return self.base.family

    def batch(self, *prompts: str) -> list[str]:
        """Return four prompts that may be drawn together: the given ones, or one of them where neighbours matter."""
        return [prompts[0]] * 4 if self.family.one_prompt else list(prompts)

    def images(self, adapter: str | None, prompts: list[str]) -> np.ndarray:
        self.store.swap(adapter)
        return draw(self.pipeline, self.encoder, prompts, SEEDS, self.sampler, 4)


@pytest.fixture(scope="module", params=TINY)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = save_tiny(request.param, tmp_path_factory.mktemp(request.param) / "base")
    base, pipeline = Base.at(folder), load(folder)
    store = AdapterStore(pipeline)
    random = torch.Generator().manual_seed(0)
    component = base.parts.denoisers[0]
    updates: dict[str, Update] = {}
    null: dict[str, Update] = {}
    for name, module in denoiser_of(pipeline).named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("to_q", "to_k", "to_v", "to_out.0", "add_k_proj")):
            down = torch.randn(2, module.in_features, generator=random)
            up = torch.randn(module.out_features, 2, generator=random)
            updates[f"{component}.{name}.weight"] = LowRank(down, up, 1.0)
            null[f"{component}.{name}.weight"] = LowRank(down, torch.zeros_like(up), 1.0)
    vectors = {name: 30 * torch.randn(2, wide, generator=random) for name, wide in base.skeleton.text_widths.items()}
    store.add("lora", Adapter(updates))
    store.add("null", Adapter(null))
    store.add("token", Adapter({}, (Token("<star>", vectors),)))
    sampler = base.sampler(SamplerSettings(steps=3))
    return Drawn(base, pipeline, store, PromptEncoder(pipeline, store), sampler)


def test_images_are_those_of_the_pipeline_itself(drawn: Drawn) -> None:
    drawn.store.swap(None)
    prompts = drawn.batch(*PROMPTS)
    own, ours = (_images(drawn, prompts, alone) for alone in (False, True))
    assert torch.isfinite(own).all()
    assert own.std() > 0.01
    assert (own - ours).abs().max() <= NEAR


def test_a_batch_drawn_twice_is_the_same_to_the_bit(drawn: Drawn) -> None:
    prompts = drawn.batch(*PROMPTS)
    assert np.array_equal(drawn.images(None, prompts), drawn.images(None, prompts))


def test_neighbours_in_a_batch_change_nothing(drawn: Drawn) -> None:
    prompts = drawn.batch(*PROMPTS)
    others = drawn.batch(PROMPTS[0], "a dog", "a very long sentence about nothing in particular", "snow")
    assert np.array_equal(drawn.images(None, prompts)[0], drawn.images(None, others)[0])


def test_a_lora_changes_images_and_its_null_changes_none(drawn: Drawn) -> None:
    prompts = drawn.batch(*PROMPTS)
    base = drawn.images(None, prompts)
    parameters = {name: id(parameter) for name, parameter in weights_of(drawn.pipeline).items()}
    assert (drawn.images("lora", prompts) != base).any((1, 2, 3)).all()
    assert np.array_equal(drawn.images("null", prompts), base)
    assert np.array_equal(drawn.images(None, prompts), base)
    assert {name: id(parameter) for name, parameter in weights_of(drawn.pipeline).items()} == parameters


def test_a_learned_token_acts_where_it_is_written_and_is_proved_to_act_nowhere_else(drawn: Drawn) -> None:
    prompts = [*PROMPTS[:3], TRIGGERED]
    args = (drawn.pipeline, drawn.store, drawn.encoder, drawn.sampler)
    assert unchanged(*args, "token", prompts) == [True, True, True, False]
    assert unchanged(*args, "lora", prompts) == [False] * 4
    plain, triggered = drawn.batch(*PROMPTS), [TRIGGERED] * 4
    base, before = drawn.images(None, plain), drawn.images(None, triggered)
    assert np.array_equal(drawn.images("token", plain), base)
    assert not np.array_equal(drawn.images("token", triggered), before)
    assert np.array_equal(drawn.images(None, triggered), before)


def test_attention_is_shifted_by_a_lora_and_by_its_null_not_at_all(drawn: Drawn) -> None:
    if not drawn.family.text_keys:
        pytest.skip("its text has no keys of its own")
    settings = AttentionSettings(bins=1)
    comparer = Comparer(drawn.pipeline, drawn.store, drawn.encoder, drawn.sampler, settings, 4, drawn.base.size)
    prompts = drawn.batch(*PROMPTS)
    shifts = {name: comparer.compare(name, prompts, SEEDS)[0].shifts[..., 0] for name in ("lora", "null")}
    drawn.store.swap(None)
    assert (shifts["null"] == 0).all()
    assert shifts["lora"].sum() > 0


def test_steps_are_counted_after_the_prompts_were_encoded(drawn: Drawn) -> None:
    drawn.store.swap(None)
    seen: list[tuple[int, int]] = []
    asked = PromptEncoder(drawn.pipeline, drawn.store)

    def note(step: int, steps: int) -> None:
        assert asked._known
        seen.append((step, steps))

    draw(drawn.pipeline, asked, drawn.batch(*PROMPTS), SEEDS, drawn.sampler, 4, note)
    steps = seen[0][1]
    assert seen == [(step, steps) for step in range(steps)]


def test_the_names_and_shapes_that_files_give_are_those_of_the_loaded_parts(drawn: Drawn) -> None:
    loaded = {name: tuple(weight.shape) for name, weight in weights_of(drawn.pipeline).items()}
    told = drawn.base.skeleton.shapes
    # Tokens were added to the embeddings; and the files of language models that see images have other names.
    beside = ("token_embedding", "shared", "embed_tokens", "text_encoder.model")
    assert not [name for name in loaded if loaded[name] != told.get(name) and not any(x in name for x in beside)]
    assert any(name.startswith(("unet.", "transformer.")) for name in loaded)


def test_images_have_the_size_that_the_base_tells_before_it_is_loaded(drawn: Drawn) -> None:
    assert drawn.images(None, drawn.batch(*PROMPTS)).shape == (4, *drawn.base.size, 3)


@torch.no_grad()
def _images(drawn: Drawn, prompts: list[str], alone: bool) -> Any:
    """Return what the pipeline's call gives, with prompts encoded by itself or by raymap."""
    call = call_of(drawn.pipeline, prompts, SEEDS, drawn.sampler)
    if not alone:
        return drawn.pipeline(**call)[0]
    with drawn.encoder.in_place():
        return drawn.pipeline(**call)[0]

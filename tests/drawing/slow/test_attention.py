"""Cross-attention of base and adapted model: what is watched, how it is reduced, what follows from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import jensenshannon

from raymap.actors.attention import attention_table, token_table
from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter, LowRank, Token
from raymap.base.clip_tokenizer import clip_tokenizer
from raymap.base.families.stable_diffusion import STABLE_DIFFUSION as SD
from raymap.base.pipeline import load
from raymap.drawing.attention.denoise import Compared, Comparer
from raymap.drawing.attention.heat import rectangle
from raymap.drawing.attention.lockstep import Pass, lockstep
from raymap.drawing.attention.shift import Grid, jensen_shannon
from raymap.drawing.attention.tokens import CLASSES, Reading, class_masks, classify, read_prompt
from raymap.drawing.attention.watch import text_attentions, watched
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import call_of, draw, noise_generators
from raymap.embedded.model import PIPELINE
from raymap.errors import DrawingError
from raymap.plan.blocks import Block, Item
from raymap.store.schema import ATTENTION, ATTENTION_TOKENS
from raymap.study.adapter import AdapterInfo
from raymap.study.model import AttentionSettings, SamplerSettings
from tests.pipelines.parts import byte_tokenizer

PROMPTS = ["a red car on a street", "chaos"]
SEEDS = (3, 5)
SIZE = 3
SAMPLER = SamplerSettings(steps=4, guidance_scale=4.0)
SETTINGS = AttentionSettings(bins=2, head_groups=2)
Maps = list[list[torch.Tensor]]
"""Of every forward pass, of every layer, probabilities (items, heads, positions, tokens)."""


class Setting:
    """A base with two adapters: one that shifts attention, and the null one."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.pipeline = load(PIPELINE)
        self.store = AdapterStore(self.pipeline)
        random = torch.Generator().manual_seed(0)
        shifting, null = {}, {}
        for name, module in self.pipeline.unet.named_modules():
            if name.endswith(("to_q", "to_k", "to_v")):
                out, inner = module.weight.shape
                down = torch.randn(4, inner, generator=random) / inner
                up = 0.5 * torch.randn(out, 4, generator=random)
                shifting[f"unet.{name}.weight"] = LowRank(down, up, 1.0)
                null[f"unet.{name}.weight"] = LowRank(down, torch.zeros_like(up), 1.0)
        self.store.add("shifting", Adapter(shifting))
        self.store.add("null", Adapter(null, (Token("<new>", {"text_encoder": torch.randn(1, 96, generator=random)}),)))
        self.encoder = PromptEncoder(self.pipeline, self.store)

    def comparer(self, settings: AttentionSettings = SETTINGS) -> Comparer:
        return Comparer(self.pipeline, self.store, self.encoder, SAMPLER, settings, SIZE, (64, 64))

    def latents(self, adapter: str | None) -> torch.Tensor:
        """Denoise by the pipeline's own call."""
        self.store.swap(adapter)
        padded = [*PROMPTS, PROMPTS[-1]]
        found: torch.Tensor = self.pipeline(
            prompt_embeds=self.encoder.texts(padded)[0],
            negative_prompt_embeds=self.encoder.texts([""] * SIZE)[0],
            num_inference_steps=SAMPLER.steps,
            guidance_scale=SAMPLER.guidance_scale,
            generator=noise_generators((*SEEDS, SEEDS[-1])),
            output_type="latent",
        ).images
        return found

    def reading(self, prompt: str) -> Reading:
        return read_prompt(self.pipeline, self.store, SAMPLER, prompt)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


@pytest.fixture(scope="module")
def compared(setting: Setting) -> tuple[Compared, dict[str, torch.Tensor]]:
    return setting.comparer().compare("shifting", PROMPTS, SEEDS)


def kept_maps(unet: Any, items: slice, work: Callable[[], object]) -> Maps:
    """Return the maps of all forward passes that some work does."""
    maps: Maps = []

    def take(layer: int, probabilities: torch.Tensor) -> None:
        if layer == 0:
            maps.append([])
        maps[-1].append(probabilities)

    with watched(unet, SD, items, take), torch.no_grad():
        work()
    return maps


# What is watched


def test_maps_equal_a_direct_computation_in_double_precision(setting: Setting) -> None:
    """softmax(QKᵀ/√d) by numpy from what each layer gets, in float64 on the embedded base's weights."""
    setting.store.restore()
    unet = copy.deepcopy(setting.pipeline.unet).double()
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 16, 16, generator=random, dtype=torch.float64)
    text = torch.randn(2, 77, 96, generator=random, dtype=torch.float64)
    given: list[tuple[np.ndarray, np.ndarray]] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append((args[0].numpy(), kwargs["encoder_hidden_states"].numpy()))

    modules: list[Any] = [layer.module for layer in text_attentions(unet, SD).values()]
    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    [maps] = kept_maps(unet, slice(0, 2), lambda: unet(latents, 300, text))
    for hook in hooks:
        hook.remove()
    assert len(maps) == len(modules) == len(given) == 7
    for module, (hidden, states), found in zip(modules, given, maps, strict=True):
        heads = module.heads
        query, key = hidden @ module.to_q.weight.detach().numpy().T, states @ module.to_k.weight.detach().numpy().T
        width = query.shape[-1] // heads
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = query[..., part] @ key[..., part].swapaxes(1, 2) / math.sqrt(width)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            expected = weights / weights.sum(-1, keepdims=True)
            assert found[:, head].numpy() == pytest.approx(expected, abs=2e-6)
        assert found.sum(-1).numpy() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("adapter", [None, "shifting"])
def test_watching_changes_no_image_and_leaves_no_trace(setting: Setting, adapter: str | None) -> None:
    setting.store.swap(adapter)
    images: list[np.ndarray] = []

    def drawn() -> None:
        images.append(draw(setting.pipeline, setting.encoder, PROMPTS, SEEDS, SAMPLER, SIZE))

    drawn()
    kept_maps(setting.pipeline.unet, slice(SIZE, SIZE + 2), drawn)
    assert np.array_equal(images[0], images[1])
    for module in setting.pipeline.unet.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_both_trajectories_are_those_of_an_unwatched_run_to_the_bit(
    setting: Setting, compared: tuple[Compared, dict[str, torch.Tensor]]
) -> None:
    _, latents = compared
    assert torch.equal(latents["base"], setting.latents(None))
    assert torch.equal(latents["free"], setting.latents("shifting"))
    assert not torch.equal(latents["base"], latents["free"])


def test_an_error_under_the_adapter_ends_both_calls_and_leaves_the_pipeline_as_it_was(setting: Setting) -> None:
    def arguments() -> dict[str, Any]:
        return call_of(setting.pipeline, PROMPTS, SEEDS, SAMPLER)

    def fails(one: Pass) -> Any:
        if one.adapted and one.step == 2:
            raise DrawingError("in the middle")
        return one.run()

    unet = setting.pipeline.unet
    moving = unet.forward = unet.forward  # as what moves weights to a device replaces it
    with pytest.raises(DrawingError, match="in the middle"):
        lockstep(setting.pipeline, setting.encoder, setting.store, "shifting", arguments, fails)
    assert vars(unet)["forward"] is moving
    del unet.forward
    assert "encode_prompt" not in vars(setting.pipeline)
    assert not {"step", "set_timesteps"} & vars(setting.pipeline.scheduler).keys()
    before = setting.latents(None)
    lockstep(setting.pipeline, setting.encoder, setting.store, "shifting", arguments)
    assert torch.equal(setting.latents(None), before)


def test_tokens_are_told_apart_by_what_they_mean(setting: Setting) -> None:
    masks = class_masks([setting.reading(prompt) for prompt in ("a red car", "", "very " * 90)])
    assert masks.sum(2).eq(1).all()
    counts = masks.sum(1).int().tolist()
    assert counts == [[3, 1, 1, 72], [0, 1, 1, 75], [75, 1, 1, 0]]
    assert CLASSES == ("content", "bos", "end", "padding")
    assert masks[0].argmax(1)[:6].tolist() == [1, 0, 0, 0, 2, 3]


def test_words_are_found_within_a_template_and_in_the_spelling_of_the_pipeline() -> None:
    """The template repeats the prompt's words; where a tokenizer joins a blank to a word, the first piece differs."""
    clip = clip_tokenizer()
    ids = clip("describe a red car, as in: a red car now").input_ids
    classes, words = classify(ids, "A Red Car", clip)
    assert clip.decode(ids[words.start : words.stop]) == "a red car"
    assert words.start > ids.index(clip("car", add_special_tokens=False).input_ids[0])
    assert [CLASSES[k] for k in classes] == ["bos"] + ["padding"] * 8 + ["content"] * 3 + ["padding"] * 2
    pieces = byte_tokenizer(64)
    ids = pieces("Say: A Cup now", add_special_tokens=False).input_ids
    _, words = classify(ids, "A Cup", pieces)
    assert pieces.decode(ids[words.start : words.stop]) == "A Cup"
    ids = pieces("say: a cup now", add_special_tokens=False).input_ids
    _, words = classify(ids, "A Cup", pieces)
    assert pieces.decode(ids[words.start : words.stop]) == "a cup"


@pytest.mark.parametrize(
    ("positions", "size", "expected"),
    [(256, (512, 512), (16, 16)), (6240, (480, 832), (60, 104)), (1560, (480, 832), (30, 52)), (40, (9, 16), (5, 8))],
)
def test_a_feature_map_has_the_proportions_of_the_image(
    positions: int, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert rectangle(positions, size) == expected


# How it is reduced


@pytest.mark.parametrize(("steps", "bins"), [(20, 5), (7, 3), (4, 4)])
def test_steps_are_shared_out_evenly(steps: int, bins: int) -> None:
    grid = Grid(steps, bins, 1, 1)
    counts = [grid.steps_in(k) for k in range(bins)]
    assert sum(counts) == steps
    assert max(counts) - min(counts) <= 1
    assert [grid.bin_of(k) for k in range(steps)] == sorted(grid.bin_of(k) for k in range(steps))


def test_the_divergence_is_that_of_scipy_and_keeps_the_digits_of_small_shifts() -> None:
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.full(77, 0.3), 50).astype(np.float32) for _ in range(2))
    found = jensen_shannon(torch.tensor(p), torch.tensor(q))
    assert (found >= 0).all()
    expected = [jensenshannon(a, b, base=2) ** 2 for a, b in zip(p.astype(float), q.astype(float), strict=True)]
    assert found.sum(-1).numpy() == pytest.approx(expected, rel=1e-4)
    small = p * (1 + 1e-4 * rng.choice([-1, 1], p.shape)).astype(np.float32)
    shift = (small.astype(float) - p.astype(float)) ** 2 / np.where(p > 0, p, 1)
    second_order = shift.sum(-1) / (8 * math.log(2))
    found = jensen_shannon(torch.tensor(p), torch.tensor(small)).sum(-1)
    assert found.numpy() == pytest.approx(second_order, rel=2e-2)
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert float(jensen_shannon(one, other).sum()) == pytest.approx(1, abs=1e-5)
    assert not jensen_shannon(torch.tensor(p), torch.tensor(p)).any()


def expected_shifts(base: Maps, adapted: Maps, masks: np.ndarray) -> np.ndarray:
    """Reduce whole maps by numpy in float64: (items, layers, bins, head groups, classes, measures)."""
    layers, classes = len(base[0]), masks.shape[-1]
    found = np.zeros((len(PROMPTS), layers, 2, 2, classes, 3))
    for layer in range(layers):
        for bin_, steps in enumerate(((0, 1), (2, 3))):
            a, b = (np.stack([maps[s][layer].numpy().astype(float) for s in steps]) for maps in (base, adapted))
            m = (a + b) / 2
            js = (a * np.log2(a / m) + b * np.log2(b / m)) / 2
            for group, heads in enumerate(np.array_split(np.arange(a.shape[2]), 2)):
                for measure, values in enumerate((np.abs(b - a), a, js)):
                    by_token = values[:, :, heads].mean(axis=(0, 2, 3))  # (items, tokens)
                    found[:, layer, bin_, group, :, measure] = np.einsum("it,itk->ik", by_token, masks)
    return found


@pytest.fixture(scope="module")
def whole(setting: Setting) -> dict[str, Maps]:
    """Whole maps of the base's own call, of the adapter's own call, and of the adapter on what the base was given."""
    unet, items = setting.pipeline.unet, slice(SIZE, SIZE + 2)
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args[0], args[1], kwargs["encoder_hidden_states"]))

    hook = unet.register_forward_pre_hook(note, with_kwargs=True)
    base = kept_maps(unet, items, lambda: setting.latents(None))
    hook.remove()
    free = kept_maps(unet, items, lambda: setting.latents("shifting"))
    setting.store.swap("shifting")
    forced = kept_maps(unet, items, lambda: [unet(x, t, encoder_hidden_states=text) for x, t, text in seen])
    setting.store.restore()
    return {"base": base, "free": free, "forced": forced}


def test_both_protocols_are_reduced_as_whole_maps_would_be(
    setting: Setting, compared: tuple[Compared, dict[str, torch.Tensor]], whole: dict[str, Maps]
) -> None:
    found, _ = compared
    masks = class_masks([setting.reading(prompt) for prompt in PROMPTS]).double().numpy()
    for k, protocol in enumerate(("free", "forced")):
        expected = expected_shifts(whole["base"], whole[protocol], masks)
        assert found.shifts[k][..., :2] == pytest.approx(expected[..., :2], rel=1e-4, abs=1e-8)
        assert found.shifts[k][..., 2] == pytest.approx(expected[..., 2], rel=1e-3, abs=1e-8)
    assert found.shifts[..., 1].sum(-1) == pytest.approx(1, abs=1e-5)  # rows of A sum to 1
    # Step 0 starts from the same noise; afterwards the trajectories are apart.
    assert not np.array_equal(found.shifts[0], found.shifts[1])
    assert found.tokens.tolist() == [[6, 1, 1, 69], [1, 1, 1, 74]]
    assert found.timesteps[0] > found.timesteps[1]


def test_a_word_s_map_is_the_mean_of_all_layers_brought_to_one_size(
    compared: tuple[Compared, dict[str, torch.Tensor]], whole: dict[str, Maps]
) -> None:
    """Resized by Pillow, whose bilinear filter is another program's."""
    heat = compared[0].heat
    assert heat is not None
    assert heat.tokens == (("a</w>", "red</w>", "car</w>", "on</w>", "a</w>", "street</w>"), ("chaos</w>",))
    for name, found in (("base", heat.base), ("free", heat.adapted)):
        for item, token in ((0, 1), (0, 5), (1, 0)):
            images = []
            for layers in whole[name]:
                for maps in layers:
                    values = maps[item, :, :, token + 1].mean(0).numpy()
                    side = math.isqrt(len(values))
                    small = Image.fromarray(values.reshape(side, side))
                    images.append(np.asarray(small.resize((16, 16), Image.Resampling.BILINEAR)))
            assert found[item, token] == pytest.approx(np.mean(images, axis=0), rel=1e-3, abs=1e-6)


def test_a_prompt_s_first_image_is_the_one_whose_words_are_mapped(setting: Setting) -> None:
    found, _ = setting.comparer().compare("null", [PROMPTS[0], *PROMPTS], (1, *SEEDS))
    assert found.heat is not None
    assert found.heat.items == (0, 2)
    assert np.array_equal(found.heat.base, found.heat.adapted)
    assert found.heat.base[0].min() > 0
    items = tuple(Item(f"p{s}", p, "objects", s) for p, s in zip([PROMPTS[0], *PROMPTS], (1, *SEEDS), strict=True))
    info = AdapterInfo("identity-lora", "identity", "identity", "control", "0" * 64)
    table = token_table(Block(0, items, ()), info, found.heat, "")
    assert [(f.name, f.type) for f in table.schema] == [(f.name, f.type) for f in ATTENTION_TOKENS]
    rows = pl.DataFrame(table)
    assert rows["position"].to_list() == [1, 2, 3, 4, 5, 6, 1]
    assert rows["seed"].to_list() == [1] * 6 + [5]
    assert rows["base"].list.len().unique().to_list() == [256]


def test_the_identity_control_shifts_attention_by_exactly_nothing(setting: Setting) -> None:
    found, latents = setting.comparer().compare("null", PROMPTS, SEEDS)
    assert not found.shifts[..., 0].any()
    assert not found.shifts[..., 2].any()
    assert torch.equal(latents["base"], latents["free"])


def test_a_table_has_one_row_per_seed_protocol_layer_bin_group_and_class(
    compared: tuple[Compared, dict[str, torch.Tensor]],
) -> None:
    found, _ = compared
    items = tuple(Item(f"p{k}", p, "objects", s) for k, (p, s) in enumerate(zip(PROMPTS, SEEDS, strict=True)))
    info = AdapterInfo("cup-lora", "lora", "cup", "object", "0" * 64)
    table = attention_table(Block(0, items, ()), info, found, ("free", "forced"), "d" * 64)
    assert [(f.name, f.type) for f in table.schema] == [(f.name, f.type) for f in ATTENTION]
    rows = pl.DataFrame(table).with_columns(pl.col(pl.Categorical).cast(pl.String))
    keys = rows.select("seed", "protocol", "layer", "bin", "heads", "tokens")
    assert keys.height == keys.unique().height == 2 * 2 * 7 * 2 * 2 * 4
    row = rows.filter(
        pl.col("seed") == 5, pl.col("protocol") == "forced", pl.col("layer").str.starts_with("mid_block"),
        pl.col("bin") == 1, pl.col("heads") == 0, pl.col("tokens") == "padding",
    ).row(0, named=True)  # fmt: skip
    layer = next(k for k, name in enumerate(found.layers) if name.startswith("mid_block"))
    assert row["delta"] == pytest.approx(found.shifts[1, 1, layer, 1, 0, 3, 0] / 74, rel=1e-6)
    assert row["attention"] == pytest.approx(found.shifts[1, 1, layer, 1, 0, 3, 1] / 74, rel=1e-6)
    assert row["js"] == found.shifts[1, 1, layer, 1, 0, 3, 2]
    assert (row["prompt_id"], row["n_tokens"], row["drawn"]) == ("p1", 74, True)


def test_what_is_proved_to_be_the_base_s_own_has_rows_of_nothing(setting: Setting) -> None:
    unmoved = setting.comparer().unmoved(PROMPTS)
    items = tuple(Item(f"p{k}", p, "objects", s) for k, (p, s) in enumerate(zip(PROMPTS, SEEDS, strict=True)))
    info = AdapterInfo("cup-ti", "textual_inversion", "cup", "object", "0" * 64)
    rows = pl.DataFrame(attention_table(Block(0, items, ()), info, unmoved, ("free", "forced"), ""))
    assert rows.height == 2 * 2 * 7 * 2 * 2 * 4
    assert rows["delta"].max() == rows["js"].max() == 0
    assert rows["attention"].is_null().all()
    assert not rows["drawn"].any()

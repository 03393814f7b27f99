"""The resident store: adapters swapped in place as diffusers would apply them, null when null, restored to the bit."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from raymap.adapters import resident as store_module
from raymap.adapters.lora import LORA_FILE, METADATA
from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter, LowRank, Replacement, Token
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.drawing import prompts as prompts_module
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.proof import unchanged
from raymap.drawing.sampling import draw, noise_generators
from raymap.embedded.model import PIPELINE
from raymap.personalize.lessons import Lesson
from raymap.personalize.methods.lora import train as train_lora
from raymap.study.methods.lora import LoraRecipe
from raymap.study.model import SamplerSettings

PROMPTS = ["a red car on a street", "a city at night", "a brown bear on snow"]
SEEDS = (3, 5, 7)
TEXT = "text_encoder"
SAMPLER = SamplerSettings(steps=4, guidance_scale=4.0)
RECIPE = LoraRecipe(steps=12, batch_size=2, learning_rate=2e-3, alpha=8.0)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


def lesson(images: np.ndarray | None, folder: Path) -> Lesson:
    return Lesson(images, "sks", ("a photo of sks cup",), "a photo of cup", "cup", folder)


@pytest.fixture(scope="module")
def trained(pipeline: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA trained for a few steps on noise, with alpha 8 at rank 4 (so that losing alpha would show)."""
    folder = tmp_path_factory.mktemp("lora")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert len(list(train_lora(pipeline, (lesson(images, folder),), RECIPE, folder / "checkpoint.pt"))) == 2
    return folder


def drawn(pipeline: StableDiffusionPipeline, store: AdapterStore | None = None) -> np.ndarray:
    return draw(pipeline, PromptEncoder(pipeline, store), PROMPTS, SEEDS, SAMPLER, 4)


def by_diffusers(pipeline: StableDiffusionPipeline) -> np.ndarray:
    """Draw with the pipeline's own call alone: its prompts, its rounding, the same padded batch."""
    images = pipeline(
        [*PROMPTS, PROMPTS[-1]],
        num_inference_steps=SAMPLER.steps,
        guidance_scale=SAMPLER.guidance_scale,
        generator=noise_generators((*SEEDS, SEEDS[-1])),
    ).images
    return np.stack([np.asarray(image) for image in images])[:3]


def weights_digest(pipeline: StableDiffusionPipeline) -> str:
    """Digest every weight of the denoiser and of the text encoder; spare token rows at the end have to be zero."""
    total = hashlib.sha256()
    for component in (pipeline.unet, pipeline.text_encoder):
        for name, value in sorted(component.state_dict().items()):
            rows = value[: len(pipeline.tokenizer)] if "token_embedding" in name else value
            assert not value[len(rows) :].any()
            total.update(name.encode() + rows.numpy().tobytes())
    return total.hexdigest()


def lora(folder: Path) -> Adapter:
    return read_adapter(folder, Base.at(PIPELINE).skeleton).adapter


def varied(folder: Path, n: int, pipeline: StableDiffusionPipeline) -> dict[str, Adapter]:
    """Return adapters of all kinds over different weights: low rank, replaced, text encoder, tokens, whole rows."""
    updates = lora(folder).updates
    names = list(updates)
    live = {f"unet.{k}": v for k, v in pipeline.unet.named_parameters()}
    text = {f"text_encoder.{k}": v for k, v in pipeline.text_encoder.named_parameters()}
    random_ = torch.Generator().manual_seed(1)
    adapters: dict[str, Adapter] = {}
    for k in range(n):
        part: dict[str, LowRank | Replacement] = {}
        for name in names[k :: 2 + k % 3]:
            update = updates[name]
            assert isinstance(update, LowRank)
            part[name] = LowRank(update.down * (k + 1), update.up, update.scale)
        for name in [n for n in live if "attn2.to_v.weight" in n][k % 2 :: 2]:
            part[name] = Replacement(live[name].detach() * 1.1)
        name = "text_encoder.encoder.layers.1.mlp.fc1.weight"
        if k % 4 == 1:
            part[name] = Replacement(text[name].detach() + 0.01)
        tokens = (Token("<new>", {TEXT: torch.randn(1 + k % 3, 96, generator=random_)}),) if k % 2 else ()
        rows = pipeline.text_encoder.get_input_embeddings().weight[: len(pipeline.tokenizer)].detach() * 0.9
        adapters[f"a{k}"] = Adapter(part, tokens, {TEXT: rows} if k % 7 == 3 else {})
    return adapters


def test_training_leaves_the_base_as_it_was(pipeline: StableDiffusionPipeline, trained: Path) -> None:
    assert weights_digest(pipeline) == weights_digest(load(PIPELINE))


def test_the_base_draws_what_diffusers_draws(pipeline: StableDiffusionPipeline) -> None:
    ours, theirs = drawn(pipeline).astype(int), by_diffusers(pipeline).astype(int)
    # diffusers encodes the prompts in one batch, we one by one: last bits may differ, a grey value at most.
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3


def test_a_swap_draws_what_diffusers_draws_with_the_file_loaded(trained: Path) -> None:
    pipeline, reference = load(PIPELINE), load(PIPELINE)
    store = AdapterStore(pipeline)
    store.add("a", lora(trained))
    base = drawn(pipeline)
    store.swap("a")
    ours = drawn(pipeline)
    reference.load_lora_weights(trained)
    theirs = by_diffusers(reference)
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    effect = np.abs(ours.astype(int) - base.astype(int))
    assert effect.mean() > 1
    # diffusers adds B(Ax) to Wx, a swap multiplies by W + BA: equal but for rounding.
    assert difference.max() <= 2
    assert difference.mean() < effect.mean() / 100


def test_a_swap_writes_the_weights_that_fusing_writes(trained: Path) -> None:
    pipeline, reference = load(PIPELINE), load(PIPELINE)
    store = AdapterStore(pipeline)
    store.add("a", lora(trained))
    store.swap("a")
    reference.load_lora_weights(trained)
    reference.fuse_lora()
    reference.unload_lora_weights()
    ours, theirs = pipeline.unet.state_dict(), reference.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-7, rtol=1e-6) for k in ours)


def test_the_saved_alpha_is_read_back(trained: Path) -> None:
    with safe_open(trained / LORA_FILE, framework="pt") as file:
        config = json.loads(file.metadata()[METADATA])
    assert config["unet.lora_alpha"] == 8.0
    assert {u.scale for u in lora(trained).updates.values() if isinstance(u, LowRank)} == {2.0}


def test_a_thousand_swaps_among_twenty_adapters_restore_the_base_to_the_bit(trained: Path) -> None:
    pipeline = load(PIPELINE)
    before, images = weights_digest(pipeline), drawn(pipeline)
    store = AdapterStore(pipeline)
    for name, adapter in varied(trained, 20, pipeline).items():
        store.add(name, adapter)
    parameters = [p for part in (pipeline.unet, pipeline.text_encoder) for p in part.parameters()]
    pointers = [p.data_ptr() for p in parameters]
    order = random.Random(0)
    for _ in range(1000):
        store.swap(order.choice([None, *(f"a{k}" for k in range(20))]), order.choice([0.5, 1.0, 1.5]))
    store.swap("a3")
    live = pipeline.text_encoder.get_input_embeddings().weight
    assert live[len(pipeline.tokenizer) :].any()
    store.restore()
    assert weights_digest(pipeline) == before
    assert [p.data_ptr() for p in parameters] == pointers
    assert np.array_equal(drawn(pipeline, store), images)


def test_weights_that_are_no_longer_kept_merged_are_written_to_the_same_bits(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for kept in (store_module.MERGED_BYTES, 100_000, 0):
        monkeypatch.setattr(store_module, "MERGED_BYTES", kept)
        pipeline = load(PIPELINE)
        store = AdapterStore(pipeline)
        for name, adapter in varied(trained, 3, pipeline).items():
            store.add(name, adapter)
        seen = []
        for swapped in ("a0", "a1", "a0", "a2", None, "a1"):
            store.swap(swapped)
            weights = [p.detach().numpy() for part in (pipeline.unet, pipeline.text_encoder) for p in part.parameters()]
            seen.append(hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest())
        digests.append(seen)
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[0])) == 4


def test_swaps_do_not_make_a_compiled_denoiser_compile_again(trained: Path) -> None:
    pipeline = load(PIPELINE)
    store = AdapterStore(pipeline)
    for name, adapter in varied(trained, 3, pipeline).items():
        store.add(name, adapter)
    given = torch.randn(2, 4, 16, 16), 500, torch.randn(2, 77, pipeline.unet.config.cross_attention_dim)
    compiled = torch.compile(pipeline.unet, backend="eager")
    with torch.no_grad():
        compiled(*given)
        with torch.compiler.set_stance("fail_on_recompile"):
            for swapped in ("a0", "a1", None, "a2"):
                store.swap(swapped)
                assert torch.equal(compiled(*given).sample, pipeline.unet(*given).sample)


def test_alpha_scales_the_update_and_a_mask_restricts_it(trained: Path) -> None:
    pipeline = load(PIPELINE)
    before = {k: v.clone() for k, v in pipeline.unet.state_dict().items()}
    store = AdapterStore(pipeline)
    adapter = varied(trained, 1, pipeline)["a0"]
    store.add("a", adapter)
    chosen = frozenset(list(adapter.updates)[::2])
    for alpha in (0.0, 0.5, 1.0, 1.5):
        store.swap("a", alpha, chosen)
        for name, live in pipeline.unet.state_dict().items():
            key = f"unet.{name}"
            expected = before[name].double()
            if key in chosen:
                expected = expected + alpha * adapter.updates[key].delta(before[name]).double()
            assert torch.allclose(live.double(), expected, atol=1e-6, rtol=1e-5), (name, alpha)
            if alpha == 0 or key not in chosen:
                assert torch.equal(live, before[name])
    with pytest.raises(KeyError):
        store.swap("a", 1.0, frozenset({"unet.no.such.weight"}))


def test_a_null_adapter_changes_no_pixel(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    base = drawn(pipeline)
    assert not list(train_lora(pipeline, (lesson(None, tmp_path),), RECIPE, tmp_path / "checkpoint.pt"))
    store = AdapterStore(pipeline)
    store.add("lora", lora(tmp_path))
    values = {f"unet.{k}": v for k, v in pipeline.unet.named_parameters() if "attn2.to_k" in k or "attn2.to_v" in k}
    store.add("custom_diffusion", Adapter({k: Replacement(v.detach().clone()) for k, v in values.items()}))
    store.add("textual_inversion", Adapter({}, (Token("<random>", {TEXT: torch.randn(2, 96)}),)))
    for name in ("lora", "custom_diffusion", "textual_inversion"):
        store.swap(name)
        assert np.array_equal(drawn(pipeline, store), base), name
    store.restore()


def test_training_lowers_the_loss(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    taught = lesson(np.full((2, 64, 64, 3), (200, 40, 120), dtype=np.uint8), tmp_path)
    recipe = LoraRecipe(steps=60, batch_size=4, learning_rate=2e-3)
    losses = [step.losses[0] for step in train_lora(pipeline, (taught,), recipe, tmp_path / "checkpoint.pt")]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


@pytest.fixture(scope="module")
def inverted() -> tuple[StableDiffusionPipeline, AdapterStore, PromptEncoder]:
    """A base with one Textual Inversion for each way of matching: a bracketed, a careless and a long trigger."""
    pipeline = load(PIPELINE)
    store = AdapterStore(pipeline)
    vectors = torch.randn(2, 96, generator=torch.Generator().manual_seed(5))
    for name, trigger in (("bracketed", "<cup>"), ("careless", "koal")):
        store.add(name, Adapter({}, (Token(trigger, {TEXT: vectors}),)))
    rows = pipeline.text_encoder.get_input_embeddings().weight[: len(pipeline.tokenizer)].detach() * 0.999
    store.add("drifted", Adapter({}, (Token("<cup>", {TEXT: vectors}),), {TEXT: rows}))
    return pipeline, store, PromptEncoder(pipeline, store)


def test_an_inversion_is_proved_to_leave_prompts_without_its_trigger_alone(
    inverted: tuple[StableDiffusionPipeline, AdapterStore, PromptEncoder],
) -> None:
    pipeline, store, encoder = inverted
    prompts = ["a koala in a tree", "a KOALA", "a red car", "a <cup> on a table", "a < cup >"]
    assert unchanged(pipeline, store, encoder, SAMPLER, "bracketed", prompts) == [True, True, True, False, True]
    # An added token acts inside of words, whatever their case.
    assert unchanged(pipeline, store, encoder, SAMPLER, "careless", prompts) == [False, False, True, True, True]
    assert unchanged(pipeline, store, encoder, SAMPLER, "drifted", prompts) == [False] * 5
    store.restore()


def test_a_learned_token_is_read_as_diffusers_reads_it(
    inverted: tuple[StableDiffusionPipeline, AdapterStore, PromptEncoder], tmp_path: Path
) -> None:
    _, store, encoder = inverted
    reference = load(PIPELINE)
    vectors = torch.randn(2, 96, generator=torch.Generator().manual_seed(5))
    save_file({"<cup>": vectors}, tmp_path / "learned_embeds.safetensors")
    reference.load_textual_inversion(tmp_path / "learned_embeds.safetensors")
    store.swap("bracketed")
    for prompt in ("a <cup> on a table", "two <cup> and a <cup>", "a red car"):
        theirs, _ = reference.encode_prompt(prompt, "cpu", 1, False)
        assert torch.equal(encoder.texts([prompt])[0], theirs), prompt
    store.restore()


class _HostReads(TorchDispatchMode):
    """Counts what makes a host wait for its device: values read, and sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_more_sampling_steps_make_the_host_read_no_more_values(pipeline: StableDiffusionPipeline) -> None:
    encoder, reads = PromptEncoder(pipeline), []
    draw(pipeline, encoder, PROMPTS, SEEDS, SAMPLER, 4)  # encodes the prompts
    for steps in (4, 9):
        with _HostReads() as counted:
            draw(pipeline, encoder, PROMPTS, SEEDS, SAMPLER.model_copy(update={"steps": steps}), 4)
        reads.append(counted.n)
    assert reads[0] == reads[1] > 0


def test_embeddings_that_were_let_go_are_computed_again_to_the_bit(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = PromptEncoder(pipeline)
    monkeypatch.setattr(prompts_module, "KEPT_BYTES", 2 * kept.texts([""])[0].nbytes)
    short = PromptEncoder(pipeline)
    first, _ = short.texts(PROMPTS)
    assert len(short._known) == 2
    assert torch.equal(short.texts(PROMPTS)[0], first)
    assert torch.equal(kept.texts(PROMPTS)[0], first)

"""Whole fine-tuned models are read as what they change: folders, single files, and denoisers alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from raymap.adapters.brought import bring, find
from raymap.adapters.read import load_adapter, read_adapter
from raymap.adapters.resident import AdapterStore, weights_of
from raymap.adapters.update import Adapter, Replacement
from raymap.base.checkpoint import Checkpoint
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.errors import InputError
from raymap.study.model import Brought
from tests.checkpoints import unet_of, write_checkpoint
from tests.pipelines import save_tiny

KINDS = ("stable_diffusion", "stable_diffusion_xl")
TUNED = ("unet.conv_in.weight", "unet.mid_block.resnets.0.norm1.bias", "text_encoder.final_layer_norm.weight")


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.at(save_tiny(request.param, tmp_path_factory.mktemp("base") / request.param))


def tuned(base: Base, names: tuple[str, ...] = TUNED, vae: bool = False) -> tuple[DiffusionPipeline, dict[str, Any]]:
    """Return the base's pipeline with some weights changed, and those weights by their names in the base."""
    pipeline = load(base.folder)
    live = weights_of(pipeline)
    random = torch.Generator().manual_seed(0)
    called = {name: next(own for own in live if own.replace("text_model.", "") == name) for name in names}
    with torch.no_grad():
        for own in called.values():
            live[own].add_(0.1 * torch.randn(live[own].shape, generator=random))
        if vae:
            pipeline.vae.decoder.conv_in.bias += 0.1
    return pipeline, {own: live[own].detach().clone() for own in called.values()}


def as_folder(pipeline: DiffusionPipeline, path: Path) -> Path:
    pipeline.save_pretrained(path)
    return path


def as_file(pipeline: DiffusionPipeline, path: Path) -> Path:
    return write_checkpoint(pipeline, path.with_suffix(".safetensors"))


def check(adapter: Adapter, wanted: dict[str, torch.Tensor], base: Base) -> None:
    assert adapter.updates.keys() == wanted.keys()
    own = weights_of(load(base.folder))
    for name, weight in wanted.items():
        update = adapter.updates[name]
        assert isinstance(update, Replacement)
        assert torch.equal(update.weight.float(), weight)
        assert torch.equal(update.delta(own[name].detach()), weight - own[name].detach())


@pytest.mark.parametrize("written", [as_folder, as_file])
def test_what_a_whole_model_changes_is_read_and_nothing_else(
    written: Callable[[DiffusionPipeline, Path], Path], base: Base, tmp_path: Path
) -> None:
    pipeline, wanted = tuned(base)
    read = read_adapter(written(pipeline, tmp_path / "model"), base.skeleton)
    assert read.method == "checkpoint"
    check(read.adapter, wanted, base)
    assert f"{len(wanted)} differ" in read.adapter.notes[0]
    assert len(read.adapter.notes) == 1


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", ""])
def test_a_denoiser_alone_changes_no_text_encoder(prefix: str, base: Base, tmp_path: Path) -> None:
    pipeline, wanted = tuned(base, TUNED[:2])
    tensors = {
        key.replace("model.diffusion_model.", prefix): t.contiguous() for key, t in unet_of(pipeline.unet).items()
    }
    save_file(tensors, tmp_path / "unet.safetensors")
    check(read_adapter(tmp_path / "unet.safetensors", base.skeleton).adapter, wanted, base)


def test_a_denoiser_may_have_diffusers_names(base: Base, tmp_path: Path) -> None:
    pipeline, wanted = tuned(base, TUNED[:2])
    pipeline.unet.save_pretrained(tmp_path / "unet")
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    check(read_adapter(path, base.skeleton).adapter, wanted, base)


def test_another_autoencoder_is_told_apart(base: Base, tmp_path: Path) -> None:
    pipeline, wanted = tuned(base, vae=True)
    for path in (as_folder(pipeline, tmp_path / "model"), as_file(pipeline, tmp_path / "model")):
        read = read_adapter(path, base.skeleton)
        check(read.adapter, wanted, base)
        assert "autoencoder" in read.adapter.notes[1]


def test_what_rounds_to_the_files_format_is_unchanged(base: Base, tmp_path: Path) -> None:
    """A base in 32 bits and its fine-tuned model in 16: their other weights differ by rounding alone."""
    pipeline, wanted = tuned(base)
    pipeline.to(dtype=torch.float16)
    for path in (as_folder(pipeline, tmp_path / "model"), as_file(pipeline, tmp_path / "model")):
        updates = read_adapter(path, base.skeleton).adapter.updates
        assert updates.keys() == wanted.keys()
        for name, update in updates.items():
            assert isinstance(update, Replacement)
            assert torch.equal(update.weight, wanted[name].half())


def test_it_is_drawn_with_as_the_model_itself(base: Base, tmp_path: Path) -> None:
    pipeline, wanted = tuned(base)
    adapter = read_adapter(as_folder(pipeline, tmp_path / "model"), base.skeleton).adapter
    live = load(base.folder)
    store = AdapterStore(live)
    before = {name: weight.detach().clone() for name, weight in weights_of(live).items()}
    store.add("tuned", adapter)
    store.swap("tuned")
    now = weights_of(live)
    assert all(torch.equal(weight, now[name]) for name, weight in weights_of(pipeline).items())
    store.swap("tuned", 0.5)
    for name, weight in wanted.items():
        assert torch.allclose(weights_of(live)[name], (before[name] + weight) / 2, atol=1e-6)
    store.restore()
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(live).items())


@pytest.mark.parametrize("written", [as_folder, as_file])
def test_a_run_keeps_its_files_and_reads_them_again(
    written: Callable[[DiffusionPipeline, Path], Path], base: Base, tmp_path: Path
) -> None:
    pipeline, wanted = tuned(base)
    path = written(pipeline, tmp_path / "model")
    found = find(Brought(path=str(path)), path, base, triggered=False)
    assert found.info.method == "checkpoint"
    bring(found, tmp_path / "run" / "model", base.sha256)
    bring(found, tmp_path / "run" / "model", base.sha256)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    check(load_adapter(tmp_path / "run" / "model", base.skeleton), wanted, base)


def test_a_single_file_is_compared_with_a_base_that_is_one(base: Base, tmp_path: Path) -> None:
    single = Checkpoint("base.safetensors", as_file(load(base.folder), tmp_path / "base"))
    pipeline, wanted = tuned(base, TUNED[:2])
    own = Base(base.name, base.folder, base.family, single)
    check(read_adapter(as_file(pipeline, tmp_path / "model"), own.skeleton).adapter, wanted, base)


def test_what_is_no_such_model_is_refused_by_name(base: Base, tmp_path: Path) -> None:
    def refused(path: Path, *words: str) -> None:
        with pytest.raises(InputError) as error:
            read_adapter(path, base.skeleton)
        assert all(word in str(error.value) for word in (path.name, *words)), str(error.value)

    pipeline, _ = tuned(base)
    refused(save_tiny("flux", tmp_path / "flux"), "FLUX.1", base.family.title)
    refused(as_folder(load(base.folder), tmp_path / "same"), "nothing that would change")
    folder = as_folder(pipeline, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    for name, value in (
        ("conv_in.weight", None),
        ("conv_in.weight", torch.zeros(3)),
        ("conv_in.weights", torch.zeros(3)),
    ):
        save_file({key: t for key, t in {**tensors, name: value}.items() if t is not None}, weights)
        refused(folder, "unet.conv_in.weight")
    save_file({**tensors, "conv_in.bias": torch.full_like(tensors["conv_in.bias"], torch.nan)}, weights)
    refused(folder, "unet.conv_in.bias", "non-finite")
    save_file(tensors, weights)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    refused(folder, "v_prediction", "epsilon")
    single = load_file(as_file(pipeline, tmp_path / "single"))
    single.pop("model.diffusion_model.out.2.bias")
    save_file(single, tmp_path / "single.safetensors")
    refused(tmp_path / "single.safetensors", "whole checkpoint", "numbers")

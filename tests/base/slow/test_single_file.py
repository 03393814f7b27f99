"""Single-file checkpoints: they load to the bit as the folders they were written from, and say how they predict."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.base.families.registry import FAMILIES
from raymap.base.folder import OUTLINES
from raymap.base.header import Shapes
from raymap.base.model import Base, open_base
from raymap.base.pipeline import load
from raymap.base.shapes import index_of, shapes_of
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.study.model import SamplerSettings
from tests.base.test_shapes import hollow
from tests.checkpoints import UNET, clip_of, open_clip_of, unet_of, vae_of, write_checkpoint
from tests.pipelines import save_tiny

KINDS = {"stable_diffusion": "sd15", "stable_diffusion_xl": "sdxl"}
STEPS = SamplerSettings(steps=2, guidance_scale=3.0)
MARKERS = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny pipelines by kind; `<kind>.safetensors` beside one holds the same weights."""
    space = tmp_path_factory.mktemp("tiny")
    folders = {kind: save_tiny(kind, space / kind) for kind in KINDS}
    for kind, folder in folders.items():
        write_checkpoint(load(folder), space / f"{kind}.safetensors")
    return folders


@pytest.fixture(scope="module")
def outlines(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged outlines, in which tiny configurations take the places of Stable Diffusion 1.5's and of SDXL's."""
    space = tmp_path_factory.mktemp("outlines") / "outlines"
    shutil.copytree(OUTLINES, space)
    for kind, name in KINDS.items():
        shutil.rmtree(space / name)
        shutil.copytree(tiny[kind], space / name, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer.json"))
    return space


@pytest.fixture
def small(outlines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymap.base.checkpoint.OUTLINES", outlines)
    monkeypatch.setattr("raymap.base.model.OUTLINES", outlines)


def equal(one: DiffusionPipeline, other: DiffusionPipeline) -> dict[str, bool]:
    """Return for each module of a pipeline whether another's has the same names and the same bits."""
    states = {
        name: (part.state_dict(), getattr(other, name).state_dict())
        for name, part in one.components.items()
        if isinstance(part, torch.nn.Module)
    }
    return {
        name: a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for name, (a, b) in states.items()
    }


def images(pipeline: DiffusionPipeline, **settings: Any) -> torch.Tensor:
    drawn = draw(pipeline, PromptEncoder(pipeline), ["a red cup", "a dog"], (0, 1), STEPS, 2, **settings)
    return torch.as_tensor(drawn)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_its_folder_to_the_bit(kind: str, tiny: dict[str, Path]) -> None:
    base, folder = open_base(str(tiny[kind].with_suffix(".safetensors"))), Base.at(tiny[kind])
    assert base.family is folder.family
    assert not base.is_outline
    assert base.skeleton.shapes == folder.skeleton.shapes
    assert base.skeleton.vocabulary == folder.skeleton.vocabulary
    assert (base.size, base.flops(), base.heads) == (folder.size, folder.flops(), folder.heads)
    assert base.sha256 != folder.sha256
    for dtype in (torch.bfloat16, torch.float32):
        own, plain = load(base.folder, dtype=dtype, file=base.file), load(folder.folder, dtype=dtype)
        compared = equal(plain, own)
        assert compared == dict.fromkeys(compared, True)
    assert {"unet", "vae", "text_encoder"} <= compared.keys()
    assert own.scheduler.config == plain.scheduler.config
    assert torch.equal(images(own), images(plain))


@pytest.mark.usefixtures("small")
def test_a_text_encoder_of_open_clip_is_converted_to_the_bit(tiny: dict[str, Path], tmp_path: Path) -> None:
    plain = load(tiny["stable_diffusion"])
    base = open_base(str(write_checkpoint(plain, tmp_path / "model.safetensors", second=True)))
    compared = equal(plain, load(base.folder, file=base.file))
    assert compared == dict.fromkeys(compared, True)


@pytest.mark.usefixtures("small")
def test_other_weights_or_another_prediction_are_another_base(tiny: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(tiny["stable_diffusion"].with_suffix(".safetensors"), path)
    plain = open_base(str(path)).sha256
    shutil.copy(path, tmp_path / "renamed.safetensors")
    assert open_base(str(tmp_path / "renamed.safetensors")).sha256 == plain
    (tmp_path / "model.yaml").write_text("model: {params: {parameterization: v}}")
    assert open_base(str(path)).sha256 != plain
    tensors = load_file(path)
    tensors[f"{UNET}out.2.bias"] += 1
    save_file(tensors, tmp_path / "renamed.safetensors")
    assert open_base(str(tmp_path / "renamed.safetensors")).sha256 != plain


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("stable_diffusion_xl", "nothing", ("EulerDiscreteScheduler", "epsilon", False, "leading")),
        ("stable_diffusion_xl", "markers", ("EulerDiscreteScheduler", "v_prediction", True, "trailing")),
        ("stable_diffusion_xl", "header", ("EulerDiscreteScheduler", "v_prediction", False, "leading")),
        ("stable_diffusion", "beside", ("PNDMScheduler", "v_prediction", None, "leading")),
        ("stable_diffusion", "markers", ("DDIMScheduler", "v_prediction", True, "trailing")),
    ],
)
def test_the_scheduler_predicts_what_the_file_says(
    kind: str, said: str, expected: tuple[Any, ...], tiny: dict[str, Path], tmp_path: Path
) -> None:
    path = write_checkpoint(load(tiny[kind]), tmp_path / "model.safetensors", MARKERS if said == "markers" else None)
    if said == "header":
        save_file(load_file(path), path, {"modelspec.prediction_type": "v"})
    if said == "beside":
        path.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: v\n")
    base = open_base(str(path))
    scheduler = load(base.folder, file=base.file).scheduler
    told = tuple(scheduler.config.get(key) for key in ("prediction_type", "rescale_betas_zero_snr", "timestep_spacing"))
    assert (type(scheduler).__name__, *told) == expected


def built(name: str) -> dict[str, Any]:
    """Return the components of an outline without storage."""
    folder, components = OUTLINES / name, {}
    for part in (*Base.at(folder).parts.adapted, "vae"):
        library, kind = index_of(folder)[part]
        with torch.device("meta"):
            if library == "transformers":
                made = getattr(transformers, kind)
                components[part] = made(made.config_class.from_pretrained(folder / part))
            else:
                made = getattr(diffusers, kind)
                components[part] = made.from_config(made.load_config(folder / part))
    return components


def published(name: str) -> Shapes:
    """Return the shapes in a published checkpoint of Stable Diffusion or SDXL, by the names that it has there."""
    parts = built(name)
    tensors = unet_of(parts["unet"]) | vae_of(parts["vae"])
    if name == "sdxl":
        tensors |= clip_of(parts["text_encoder"], "conditioner.embedders.0.transformer.")
        tensors |= open_clip_of(parts["text_encoder_2"], "conditioner.embedders.1.model.")
    else:
        tensors |= clip_of(parts["text_encoder"], "cond_stage_model.transformer.")
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()} | {"alphas_cumprod": (1000,)}


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_checkpoints_of_published_sizes_are_recognised_by_their_headers(name: str, tmp_path: Path) -> None:
    hollow(tmp_path / "model.safetensors", published(name))
    assert open_base(str(tmp_path / "model.safetensors")).folder == OUTLINES / name


def test_where_shapes_leave_the_prediction_open_the_file_is_asked_for_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    hollow(path, published("sd21"))
    with pytest.raises(InputError, match=rf"velocity or noise.*{re.escape(str(path.with_suffix('.yaml')))}"):
        open_base(str(path))
    for word, name in (("v", "sd21"), ("eps", "sd21-base")):
        path.with_suffix(".yaml").write_text(f"model: {{params: {{parameterization: {word}}}}}")
        assert open_base(str(path)).folder == OUTLINES / name


FIRST = {name: hub_id for family in FAMILIES.values() for hub_id, name in reversed(list(family.outlines.items()))}
"""The first hub id of each outline."""


@pytest.mark.parametrize(("name", "hub_id"), FIRST.items())
@pytest.mark.parametrize("prefix", ["", UNET])
def test_a_denoiser_alone_is_told_which_base_belongs_to_it(name: str, hub_id: str, prefix: str, tmp_path: Path) -> None:
    folder, path = OUTLINES / name, tmp_path / "model.safetensors"
    shapes = shapes_of(folder, Base.at(folder).parts.denoisers[0])
    hollow(path, {prefix + key: shape for key, shape in shapes.items()})
    if name == "sd21-base":
        hub_id = hub_id.removesuffix("-base")  # of the same shapes
    with pytest.raises(InputError, match=rf"without .*write `base: {re.escape(hub_id)}` and `weights: "):
        open_base(str(path))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DiffusionPipeline]:
    """Pipelines like the tiny ones, with other weights."""
    space = tmp_path_factory.mktemp("other")
    return {kind: load(save_tiny(kind, space / kind, seed=7)) for kind in (*KINDS, "flux", "stable_diffusion_3")}


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("stable_diffusion", "original"),
        ("stable_diffusion_xl", "original"),
        ("stable_diffusion", "diffusers"),
        ("flux", "diffusers"),
        ("flux", "prefixed"),
        ("stable_diffusion_3", "diffusers"),
    ],
)
def test_a_file_of_weights_replaces_the_denoiser_alone(
    kind: str, layout: str, other: dict[str, DiffusionPipeline], tiny: dict[str, Path], tmp_path: Path
) -> None:
    folder = tiny.get(kind) or save_tiny(kind, tmp_path / kind)
    base = Base.at(folder)
    part = base.parts.denoisers[0]
    module = getattr(other[kind], part)
    state = unet_of(module) if layout == "original" else module.state_dict()
    state = {f"{UNET}{key}": value for key, value in state.items()} if layout == "prefixed" else state
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    mixed = open_base(str(folder), str(tmp_path / "w.safetensors"))
    assert mixed.weights == str(tmp_path / "w.safetensors")
    assert mixed.sha256 != base.sha256
    assert mixed.skeleton.shapes == base.skeleton.shapes
    own, plain = load(mixed.folder, file=mixed.file), load(folder)
    assert equal(other[kind], own)[part]
    compared = equal(plain, own)
    assert [name for name, same in compared.items() if not same] == [part]


def test_a_generator_draws_with_the_weights_that_its_study_names(tmp_path: Path) -> None:
    path, unet = tmp_path / "w.safetensors", PIPELINE / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(unet)
    state["conv_out.bias"] = state["conv_out.bias"] + 1
    save_file(state, path)
    spec = GeneratorSpec(PIPELINE, {}, STEPS, 2, "float32", False, False, 1, "cpu")
    plain, own = (Generator(each).pipeline.unet.state_dict() for each in (spec, replace(spec, weights=str(path))))
    assert [key for key in plain if not torch.equal(plain[key], own[key])] == ["conv_out.bias"]


def test_a_file_behind_a_url_is_fetched_once(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "w.safetensors").write_text("<!DOCTYPE html>")
    url = (tmp_path / "w.safetensors").as_uri()
    with pytest.raises(InputError, match=f"{re.escape(url)}: is a web page"):
        open_base("embedded", url)
    unet = load_file(PIPELINE / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(unet, tmp_path / "w.safetensors")
    fetched = open_base("embedded", url)
    (tmp_path / "w.safetensors").unlink()
    again = open_base("embedded", url)
    assert again.sha256 == fetched.sha256
    assert again.weights == url

"""Learned tokens: taken from wherever a file says that they are, and from nowhere else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from raymap.adapters.read import read_adapter
from raymap.adapters.update import Adapter
from raymap.base.families.registry import FAMILIES
from raymap.base.model import Base
from raymap.base.parts import Parts
from raymap.base.skeleton import Skeleton
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError, MisfitError
from tests.adapters.layouts import VECTORS, Tensors, written

ENCODERS = {
    "StableDiffusionPipeline": {"text_encoder": 768},
    "StableDiffusionXLPipeline": {"text_encoder": 768, "text_encoder_2": 1280},
    "StableDiffusion3Pipeline": {"text_encoder": 768, "text_encoder_2": 1280, "text_encoder_3": 4096},
    "FluxPipeline": {"text_encoder": 768, "text_encoder_2": 4096},
}
WIDTHS = {"clip_l": 768, "clip_g": 1280, "t5": 4096, "t5xxl": 4096}


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Base.at(PIPELINE).skeleton


def skeleton_of(pipeline: str) -> Skeleton:
    """Return a skeleton that has a denoiser of one weight, and the token embeddings of a family's text encoders."""
    encoders = ENCODERS[pipeline]
    tables = {f"{name}.token_embedding.weight": (49408, width) for name, width in encoders.items()}
    return Skeleton(FAMILIES[pipeline], Parts(("unet", *encoders)), {"unet.conv_in.weight": (4, 4), **tables}, {}, {})


@pytest.mark.parametrize(
    ("keys", "pipeline"),
    [
        (("clip_l",), "StableDiffusionPipeline"),
        (("clip_l", "clip_g"), "StableDiffusionXLPipeline"),
        (("clip_l", "clip_g", "t5"), "StableDiffusion3Pipeline"),
        (("clip_l", "clip_g", "t5xxl"), "StableDiffusion3Pipeline"),
        (("clip_l", "t5"), "FluxPipeline"),
    ],
)
def test_the_vectors_of_each_encoder_reach_it_and_no_other_base(
    keys: tuple[str, ...], pipeline: str, tmp_path: Path
) -> None:
    vectors = {key: torch.randn(2, WIDTHS[key]) for key in keys}
    save_file(vectors, path := tmp_path / "mycat.safetensors")
    (token,) = read_adapter(path, skeleton_of(pipeline)).adapter.tokens
    assert token.trigger == "mycat"
    by_width = {value.shape[1]: value for value in vectors.values()}
    assert token.vectors.keys() == ENCODERS[pipeline].keys()
    assert all(torch.equal(token.vectors[name], by_width[width]) for name, width in ENCODERS[pipeline].items())
    for other, encoders in ENCODERS.items():
        if len(encoders) < len(keys) or (len(encoders) == len(keys) and other != pipeline):
            with pytest.raises(MisfitError, match="is a Textual Inversion"):
                read_adapter(path, skeleton_of(other))


@pytest.mark.parametrize("key", ["clip_l", "string_to_param.*", "emb_params"])
def test_a_token_that_is_bundled_with_a_lora_is_taken_with_it(key: str, skeleton: Skeleton, tmp_path: Path) -> None:
    written("kohya", skeleton, path := tmp_path / "lora.safetensors")
    alone = read_adapter(path, skeleton).adapter
    bundle = {f"bundle_emb.<v1.5 cat>.{key}": VECTORS, "bundle_emb.v0dog.clip_l": VECTORS[:1].clone()}
    written("kohya", skeleton, path, more=bundle)
    read = read_adapter(path, skeleton)
    assert read.method == "lora"
    assert read.adapter.updates.keys() == alone.updates.keys()
    found = {token.trigger: token.vectors["text_encoder"] for token in read.adapter.tokens}
    assert torch.equal(found.pop("<v1.5 cat>"), VECTORS)
    assert torch.equal(found.pop("v0dog"), VECTORS[:1])
    assert not found


def test_a_lora_and_its_tokens_in_one_folder_are_one_adapter(skeleton: Skeleton, tmp_path: Path) -> None:
    """As diffusers' advanced training leaves them."""
    written("diffusers", skeleton, tmp_path / "pytorch_lora_weights.safetensors")
    save_file({"clip_l": VECTORS}, tmp_path / "mycat_emb.safetensors")
    read = read_adapter(tmp_path, skeleton)
    assert read.method == "lora"
    assert read.adapter.updates
    assert [token.trigger for token in read.adapter.tokens] == ["mycat_emb"]


FOREIGN: dict[str, tuple[Tensors, str]] = {
    "embeddings of prompts": (
        {"prompt_embeds": torch.zeros(60, 96)},
        "'prompt_embeds', (60, 96), and nothing in it says",
    ),
    "beside tokens": (
        {"<cup>": VECTORS, "prompt_embeds": torch.zeros(60, 96)},
        "'prompt_embeds' beside learned tokens",
    ),
    "output vectors": ({"emb_params": VECTORS, "emb_params_out": VECTORS}, "'emb_params_out'"),
    "output vectors alone": ({"clip_l_out": VECTORS}, "'clip_l_out'"),
    "another key": ({"emb_params": VECTORS, "scale": torch.ones(1)}, "'scale'"),
    "both spellings": ({"emb_params": VECTORS, "emp_params": VECTORS}, "emb_params and emp_params"),
    "an unknown encoder": ({"clip_l": VECTORS, "clip_h": VECTORS}, "'clip_h'"),
    "bundled output": ({"bundle_emb.cup.clip_l": VECTORS, "bundle_emb.cup.clip_l_out": VECTORS}, "'clip_l_out'"),
    "bundled without a key": ({"bundle_emb.cup": VECTORS}, "'bundle_emb.cup'"),
    "bundled twice": ({"bundle_emb.cup.clip_l": VECTORS, "bundle_emb.cup.emb_params": VECTORS}, "two layouts"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_nothing_calls_a_token_is_never_taken_for_one(name: str, skeleton: Skeleton, tmp_path: Path) -> None:
    """A token that is in no prompt would be proved to change nothing, whatever such a file really does."""
    tensors, words = FOREIGN[name]
    save_file({key: value.clone() for key, value in tensors.items()}, path := tmp_path / "file.safetensors")
    with pytest.raises(InputError) as refused:
        read_adapter(path, skeleton)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_user_may_say_that_a_vector_is_a_token(skeleton: Skeleton, tmp_path: Path) -> None:
    save_file({"style": VECTORS}, path := tmp_path / "file.safetensors")
    assert triggers(read_adapter(path, skeleton, "<style>").adapter) == ["<style>"]


def test_a_file_that_is_called_otherwise_inside_says_which_name_is_its_trigger(
    skeleton: Skeleton, tmp_path: Path
) -> None:
    torch.save({"string_to_param": {"*": VECTORS}, "name": "inside"}, path := tmp_path / "EasyCat.pt")
    adapter = read_adapter(path, skeleton).adapter
    assert triggers(adapter) == ["EasyCat"]
    (note,) = adapter.notes
    assert "the file's name" in note
    assert "'inside'" in note
    assert not read_adapter(path, skeleton, "<cat>").adapter.notes


def triggers(adapter: Adapter) -> list[str]:
    return [token.trigger for token in adapter.tokens]


@pytest.mark.parametrize("key", ["base_model.model.text_model.encoder.layers.0.mlp.fc1.ia3_l", "layer_norm.w_norm"])
def test_a_small_update_of_weights_is_no_token(key: str, skeleton: Skeleton, tmp_path: Path) -> None:
    save_file({key: torch.ones(1, 96)}, path := tmp_path / "adapter_model.safetensors")
    try:
        adapter = read_adapter(path, skeleton).adapter
    except InputError:
        return
    assert adapter.updates
    assert not adapter.tokens


def test_a_token_within_an_image_is_read_as_from_a_file(skeleton: Skeleton, tmp_path: Path) -> None:
    """A1111 writes JSON in base 64 into the text of a PNG."""
    content = {"string_to_param": {"*": {"TORCHTENSOR": VECTORS.tolist()}}, "name": "EasyCat", "step": 500}
    text = PngInfo()
    text.add_text("sd-ti-embedding", base64.b64encode(json.dumps(content).encode()).decode())
    image = Image.new("RGB", (8, 8))
    image.save(path := tmp_path / "EasyCat.png", pnginfo=text)
    (token,) = read_adapter(path, skeleton).adapter.tokens
    assert token.trigger == "EasyCat"
    assert torch.equal(token.vectors["text_encoder"], VECTORS)
    image.save(path)
    with pytest.raises(InputError, match="is an image"):
        read_adapter(path, skeleton)

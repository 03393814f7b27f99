"""The outlines of published bases have the published sizes, and foretell studies without a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raymap.base.families.registry import FAMILIES, family_at
from raymap.base.folder import OUTLINES, outline_of
from raymap.base.model import Base
from raymap.base.shapes import built, shapes_of
from raymap.driver.cost import estimate
from raymap.driver.prepare import prepare
from raymap.study.file import load_study
from tests.commands import Ended, python
from tests.small_study import small_study

NAMES = sorted(path.parent.name for path in OUTLINES.glob("*/model_index.json"))
IDS = {hub_id: name for family in FAMILIES.values() for hub_id, name in family.outlines.items()}
DENOISERS = {
    "sd15": 859_520_964,
    "sd21": 865_910_724,
    "sd21-base": 865_910_724,
    "sdxl": 2_567_463_684,
    "sd3-medium": 2_028_328_000,
    "sd35-medium": 2_243_171_520,
    "sd35-large": 8_056_627_520,
    "flux1-dev": 11_901_408_320,
    "flux1-schnell": 11_891_178_560,
    "chroma": 8_899_983_424,
    "flux2-klein-4b": 3_875_544_576,
    "qwen-image": 20_430_401_088,
    "z-image": 6_154_908_736,
}
"""Parameters of the published denoisers; their model cards and papers round them (0.86 B, 2.6 B, 12 B, 20 B)."""


@pytest.fixture
def unfetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub's cache that holds nothing, whatever this machine's does."""
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)


def test_every_outline_is_that_of_a_hub_id_of_its_family() -> None:
    assert set(IDS.values()) == set(NAMES) == DENOISERS.keys()
    for family in FAMILIES.values():
        assert {family_at(OUTLINES / name).title for name in family.outlines.values()} <= {family.title}


@pytest.mark.parametrize("name", NAMES)
def test_an_outlines_table_is_what_its_configurations_build(name: str) -> None:
    folder = OUTLINES / name
    parts = Base.at(folder).parts
    for component in (*parts.adapted, "vae"):
        assert shapes_of(folder, component) == built(folder, component)
    sizes = shapes_of(folder, parts.denoisers[0]).values()
    assert sum(map(math.prod, sizes)) == DENOISERS[name]


def write_lora(folder: Path, path: Path) -> None:
    """Write a LoRA of one layer of an outline's denoiser."""
    family, shapes = family_at(folder), Base.at(folder).skeleton.shapes
    name = next(name for name in shapes if family.is_attention(name) and name.endswith(".weight"))
    out, wide = shapes[name]
    layer = name.removesuffix(".weight")
    save_file({f"{layer}.lora_A.weight": torch.ones(4, wide), f"{layer}.lora_B.weight": torch.ones(out, 4)}, path)


@pytest.mark.usefixtures("unfetched")
@pytest.mark.parametrize("hub_id", IDS)
def test_a_study_on_a_published_base_is_foretold_without_a_network(hub_id: str, tmp_path: Path) -> None:
    """What needs a tokenizer that no outline has, a T5's or a language model's, is left to the run itself."""
    assert outline_of(hub_id) == OUTLINES / IDS[hub_id]
    prompts = {"people": ["a man " * 600], "animals": ["a brown bear"]}
    settings = {"base": hub_id, "clip": "embedded", "lpips": "embedded", "prompts": prompts}
    if Base.at(OUTLINES / IDS[hub_id]).family.objective:
        path = small_study(tmp_path, **settings, methods={"textual_inversion": {"steps": 2}})
    else:  # raymap trains no such base, and adapters are brought along
        write_lora(OUTLINES / IDS[hub_id], tmp_path / "cup.safetensors")
        path = small_study(tmp_path, **settings, subjects=None, adapters=["cup.safetensors"])
    prepared = prepare(load_study(path), dry=True)
    missing = prepared.missing[0]
    assert missing.startswith(f"base {hub_id}: not fetched")
    assert prepared.base.heads > 0
    assert len(prepared.too_long) == (prepared.base.skeleton.tokenizer is not None)
    assert estimate(prepared).sentence


@pytest.mark.usefixtures("unfetched")
def test_adapters_are_checked_and_an_audit_is_foretold_before_the_base_was_fetched(
    tmp_path: Path, call: Callable[..., tuple[int, str]], command: Callable[..., Ended]
) -> None:
    sdxl = "stabilityai/stable-diffusion-xl-base-1.0"
    layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    lora = {f"{layer}.lora_A.weight": torch.ones(4, 2048), f"{layer}.lora_B.weight": torch.ones(640, 4)}
    save_file(lora, path := tmp_path / "cup.safetensors")
    code, said = call("check", path, "--base", sdxl)
    assert code == 0, said
    code, said = call("check", path, "--base", "stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert code == 2, said
    ended = command("audit", "--adapter", path, "--base", sdxl, "--dry-run", "--output", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert f"base {sdxl}: not fetched; its known architecture is used instead, with images of 1024x1024" in ended.out
    assert not (tmp_path / "run").exists()


def test_an_outline_is_read_without_torch() -> None:
    code = (
        "import sys\nfrom raymap.base.folder import OUTLINES\nfrom raymap.base.model import Base\n"
        "for folder in OUTLINES.iterdir():\n    base = Base.at(folder)\n"
        "    base.skeleton.shapes, base.flops(), base.heads\n"
        "assert not {'torch', 'diffusers', 'transformers'} & sys.modules.keys()"
    )
    python(code)

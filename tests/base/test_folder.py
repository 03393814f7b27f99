"""What decides a base: the files that loading it reads, and how often its scheduler asks the denoiser."""

from __future__ import annotations

import shutil
from pathlib import Path

from raymap.base.model import Base
from raymap.embedded.model import PIPELINE


def test_what_the_hubs_cache_lays_beside_a_base_does_not_change_it(tmp_path: Path) -> None:
    own = Base.at(PIPELINE).sha256
    (beside := tmp_path / "beside").mkdir()
    shutil.copytree(PIPELINE, beside, dirs_exist_ok=True)
    for name in (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "safety_checker/model.safetensors",
        "v1-5-pruned.safetensors",
    ):
        (beside / name).parent.mkdir(exist_ok=True)
        (beside / name).write_bytes(b"another program asked for it")
    assert Base.at(beside).sha256 == own
    (other := tmp_path / "other").mkdir()
    shutil.copytree(PIPELINE, other, dirs_exist_ok=True)
    with (other / "scheduler" / "scheduler_config.json").open("a") as file:
        file.write(" ")
    assert Base.at(other).sha256 != own

"""A collection of adapter files in the layouts that people have, each with what is expected of it.

The files are no part of the project; they lie beside it, or where RAYMAP_ADAPTER_FILES says. Every kind of file in it
has a test of its own elsewhere, which builds its file.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from raymap.adapters.glance import glance
from raymap.adapters.read import read_adapter
from raymap.base.model import Base
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from tests.commands import Ended

BESIDE = Path(__file__).parents[3] / "shared" / "data" / "adapterfiles"
FOLDER = Path(os.environ.get("RAYMAP_ADAPTER_FILES", BESIDE))
MANIFEST = FOLDER / "manifest.tsv"
BUILT = "sdxl.py builds base_tinysdxl; sdxl_unet_lora.safetensors"
"""The row of the manifest that has no file: tests of SDXL build their own."""


@dataclass(frozen=True)
class Loads:
    """A file that is read: its method, how many weights it updates, its triggers, and what its notes say."""

    method: str
    weights: int
    triggers: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Refused:
    """A file that is refused, in these words."""

    words: str


EXPECTED: dict[str, Loads | Refused] = {
    "a10": Loads("lora", 8),
    "b02": Loads("lora", 4),
    "b04": Loads("lora", 6),
    "w01": Loads("lora", 29),
    "b07": Loads("lora", 6),
    "b11": Loads("lora", 6),
    "c03": Loads("lora", 2),
    "d01": Loads("lora", 4),
    "d02": Loads("lora", 4),
    "d04": Loads("lora", 4),
    "e01": Loads("loha", 10),
    "e03": Loads("lokr", 6),
    "e04": Loads("lokr", 6),
    "e05": Loads("dora", 6),
    "e07": Loads("ia3", 2),
    "e10": Loads("lora", 8),
    "e11": Loads("full", 5),
    "e12": Loads("lora", 7),
    "e14": Refused("belongs to an OFT of kohya's or LyCORIS's kind"),
    "e17": Loads("ia3", 3),
    "m01": Loads("ia3", 3),
    "m03": Refused(r"holds 'prompt_embeds', \(60, 96\), and nothing in it says that this is a learned token"),
    "n03": Loads("lora", 6, ("<mycat>",)),
    "g03": Loads("lora", 6, ("g03_sd15_advanced_pivotal_emb",)),
    "g04": Loads("textual_inversion", 0, ("g04_sd15_advanced_emb_clip_l",)),
    "g06": Refused("holds 'emb_params_out', vectors for a text encoder's output"),
    "n01": Loads("textual_inversion", 0, ("n01_onetrainer_mycat",)),
    "g12": Loads("textual_inversion", 0, ("g12_EasyCat",), "the file's name, as in A1111 and ComfyUI"),
    "h01": Refused("is a hypernetwork"),
    "i01": Refused("is for SDXL, and the base is .*stabilityai/stable-diffusion-xl-base-1.0"),
    "i05": Refused("is for FLUX.1, and the base is"),
    "i07": Refused("is for Qwen-Image or FLUX.1, and the base is"),
    "i10": Refused("is for Stable Diffusion 2, and the base is"),
    "i11": Refused("is for Stable Diffusion 1, and the base is .*--base, such as stable-diffusion-v1-5"),
    "j03": Loads("lora", 6, note="is not used"),
    "j04": Refused("is a web page"),
    "j10": Refused("has no such module"),
    "k03": Refused("is a (denoiser alone|whole checkpoint)"),
}
"""What becomes of each file on the embedded base, by how its name begins."""

if not MANIFEST.is_file():
    pytest.skip("the collection of adapter files is not here", allow_module_level=True)


def rows() -> dict[str, str]:
    """Return the names of the manifest's files, with what is expected of each in words."""
    with MANIFEST.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row["expected"] for row in csv.DictReader(file, delimiter="\t")}


def test_every_row_of_the_manifest_is_expected_here() -> None:
    assert {name[:3] for name in rows() if name not in (BUILT, "base_flux")} == EXPECTED.keys()


@pytest.mark.parametrize("name", [name for name in rows() if name not in (BUILT, "base_flux")])
def test_a_file_of_the_collection_is_what_the_manifest_says(name: str) -> None:
    expected, path = EXPECTED[name[:3]], FOLDER / name
    skeleton = Base.at(PIPELINE).skeleton
    if isinstance(expected, Refused):
        with pytest.raises(InputError, match=expected.words):
            read_adapter(path, skeleton)
        return
    read = read_adapter(path, skeleton)
    adapter = read.adapter
    assert (read.method, len(adapter.updates)) == (expected.method, expected.weights)
    assert tuple(token.trigger for token in adapter.tokens) == expected.triggers
    assert expected.note in " ".join(adapter.notes)


def test_a_header_that_names_another_base_is_warned_of() -> None:
    warnings = [glance(FOLDER / name).warnings for name in rows() if name.startswith("a10")]
    assert all("its layers are those of raymap's embedded base" in warning for (warning,) in warnings)


def test_a_base_of_another_kind_that_lacks_its_files_ends_with_exit_code_2(command: Callable[..., Ended]) -> None:
    lora = FOLDER / next(name for name in rows() if name.startswith("b04"))
    ended = command("check", lora, "--base", FOLDER / "base_flux")
    assert ended.code == 2
    assert "base_flux" in ended.err

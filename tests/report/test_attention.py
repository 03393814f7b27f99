"""A report shows where attention shifts: by layer and timestep, and word by word over the two images."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from raymap.analysis.reduce import reduce_run
from raymap.analysis.why.statistics import AttentionSummary
from raymap.report.attention import layer_plot, moved, short_layer, word_maps
from raymap.report.page import render
from raymap.results import read_run
from raymap.store.folder import arrow_bytes
from raymap.store.schema import ATTENTION_TOKENS, stamped
from raymap.testing.runs import SyntheticRun, write_run

ADAPTERS = [("cup-lora", "lora", "cup", "object"), ("cup-ti", "textual_inversion", "cup", "object")]
PROMPTS = [("a red boat", "scenes"), ("a dog", "animals")]
LAYERS = [f"{block}.transformer_blocks.0" for block in ("down_blocks.0.attentions.1", "mid_block.attentions.0")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reduced run of two adapters, all images kept, with made-up attention of the first."""
    folder = write_run(tmp_path_factory.mktemp("run"), SyntheticRun(ADAPTERS, PROMPTS, keep_all=True))
    reduce_run(folder)
    cells = read_run(folder).cells
    of = dict(cells.select("prompt", "prompt_id").unique().iter_rows())
    bump = np.zeros((16, 16), np.float32)
    bump[4, 12] = 0.5
    rows = [
        {"adapter": adapter, "prompt_id": of[prompt], "seed": 0, "position": k, "token": f"{word}</w>",
         "base": (bump if word == "boat" else 0 * bump).ravel().tolist(), "adapted": bump.ravel().tolist()}
        for adapter, *_ in ADAPTERS for prompt, _ in PROMPTS for k, word in enumerate(prompt.split(), 1)
    ]  # fmt: skip
    table = pl.DataFrame(rows).to_arrow().cast(stamped(ATTENTION_TOKENS, "digest"))
    (folder / "attention_tokens.arrow").write_bytes(arrow_bytes(table))
    (folder / "attention.json").write_text(json.dumps(attention(of)))
    return folder


def attention(of: dict[str, str]) -> dict[str, Any]:
    layers = [
        {"method": method, "protocol": "free", "layer": layer, "bin": b, "timestep": 900.0 - 400 * b, "tokens": tokens,
         "delta": size, "relative": size, "js": size}
        for method, size in (("lora", 0.25), ("textual_inversion", 0.0), ("identity", 0.0))
        for layer in LAYERS for b in range(3) for tokens in ("content", "padding")
    ]  # fmt: skip
    table = [
        {"prompt_id": of[prompt], "prompt": prompt, "prompt_category": category, "protocol": "free", "e_sem": 0.1,
         "delta_e4": {"cup-lora": 3.0, "cup-ti": 0.0}}
        for prompt, category in PROMPTS
    ]  # fmt: skip
    control = {"present": True, "exact": True, "max_delta": 0.0, "max_js": 0.0, "rows": 4}
    return {"identity_control": control, "reading": [], "table_3": table, "layers": layers}


def attention_of(root: Path) -> AttentionSummary:
    held = read_run(root).attention
    assert held is not None
    return held


def decoded(url: str) -> np.ndarray:
    kind, _, content = url.partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def test_what_leaves_attention_alone_has_neither_column_nor_panel(root: Path) -> None:
    held = attention_of(root)
    assert moved(held) == ["cup-lora"]
    one = decoded(layer_plot(held) or "")
    for row in held["layers"]:
        row["js"] = 0.0
    assert layer_plot(held) is None
    more = attention_of(root)
    for row in more["layers"]:
        row["js"] = 0.25
    assert decoded(layer_plot(more) or "").shape[1] > one.shape[1], (
        "a panel more for the second method; none for controls"
    )


def test_every_prompt_is_shown_once_with_its_words(root: Path) -> None:
    shown = word_maps(read_run(root))
    assert {one.prompt: one.words for one in shown} == {p: tuple(p.split()) for p, _ in PROMPTS}
    assert {one.seed for one in shown} == {0}


def test_a_word_is_red_where_it_is_looked_for(root: Path) -> None:
    """`dog` is looked for in one place under the adapter, and nowhere by the base."""
    drawn = decoded(next(one for one in word_maps(read_run(root)) if one.prompt == "a dog").url)
    red = (drawn[..., 0] - drawn[..., 1:].max(-1)) > 80
    lower = red[red.shape[0] // 2 :, -red.shape[1] // 3 :]
    upper = red[: red.shape[0] // 2, -red.shape[1] // 3 :]
    assert lower.sum() > 10
    assert upper.sum() == 0
    y, x = (values.mean() / size for values, size in zip(np.nonzero(lower), lower.shape, strict=True))
    assert y < 0.5 < x, "above the middle, right of it, as the map has it"


def test_the_page_holds_both_and_goes_without(root: Path, tmp_path: Path) -> None:
    page = render(root).read_text()
    assert page.count('<figure class="drawn">') == 1 + len(PROMPTS)
    folder = Path(shutil.copytree(root, tmp_path / "run"))
    (folder / "attention_tokens.arrow").unlink()
    assert render(folder).read_text().count('<figure class="drawn">') == 1
    (folder / "attention.json").unlink()
    assert '<figure class="drawn">' not in render(folder).read_text()


def test_layers_have_short_names() -> None:
    assert [short_layer(name) for name in LAYERS] == ["down 0.1", "mid"]

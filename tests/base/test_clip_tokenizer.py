"""CLIP's tokenizer, which bases without one need, is built once and reads text as open_clip's does."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
from transformers import CLIPTokenizer

from raymap.base.clip_tokenizer import clip_tokenizer_folder
from raymap.study.suite import read_suite


def test_it_gives_open_clip_s_numbers_and_lies_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = clip_tokenizer_folder()
    assert folder.is_relative_to(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    prompts = [prompt.text for prompt in read_suite("paper", "suite", Path())]
    for text in (*prompts, "a photo of sks cup", "2 KOALAS!", "café crème", ""):
        ours = tokenizer(text, padding="max_length", truncation=True).input_ids
        theirs = open_clip.tokenize([text])[0].tolist()
        length = theirs.index(49407) + 1
        assert (ours[:length], set(ours[length:])) == (theirs[:length], {49407})
    written = (folder / "tokenizer.json").stat().st_mtime_ns
    assert clip_tokenizer_folder() == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == written

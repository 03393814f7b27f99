"""What an audit is asked for: defaults, and arguments that are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raymap.study.builtin import audit_study

Call = Callable[..., tuple[int, str]]


def test_defaults_follow_the_base_and_categories_go_to_adapters_in_order() -> None:
    embedded = audit_study("embedded", ["a.safetensors"])
    assert (len(embedded.prompts), embedded.clip, embedded.lpips, embedded.seeds) == (24, "embedded", "embedded",
                                                                                     (0, 1, 2, 3))  # fmt: skip
    other = audit_study("stable-diffusion-v1-5/stable-diffusion-v1-5", ["a.pt", "b=dir=1/c.pt"], ["face", "style"])
    assert (len(other.prompts), other.clip, other.lpips) == (60, "ViT-L-14/openai", "alex")
    assert [(a.short_name, str(a.path), a.category) for a in other.adapters] == [
        ("a", "a.pt", "face"), ("b", "dir=1/c.pt", "style"),
    ]  # fmt: skip
    assert [a.category for a in audit_study("embedded", ["a.pt", "b.pt"], ["object"]).adapters] == ["object"] * 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a limit"),
        ("e_sem", "e_sem is ''"),
        ("e_sem=x", "e_sem is 'x'"),
        ("e_sem=nan", "e_sem is 'nan'"),
        ("e_sem=inf", "e_sem is 'inf'"),
        ("e_per=-1", "e_per is '-1'"),
        ("prompts=1.5", "prompts is '1.5'"),
        ("esem=1", "'esem' is not a limit"),
        ("e_sem=1,e_sem=2", "'e_sem' is given twice"),
        ("e_sem=1;e_per=2", "e_sem is"),
    ],
)
def test_a_wrong_limit_is_refused_before_anything_is_read(call: Call, text: str, problem: str) -> None:
    code, err = call("audit", "--adapter", "nowhere.safetensors", "--fail-above", text)
    assert code == 2
    assert problem in err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--adapter", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--adapter", "x", "--seeds", "1"), "--seeds 1"),
        (("--adapter", "x", "--category", "dog"), "--category"),
        (("--adapter", "x", "--adapter", "y", "--adapter", "z", "--category", "face", "--category", "style"), "2 cat"),
        (("--adapter", "x", "--junit", "x.xml"), "--junit"),
        (("--adapter", "x", "--json", "."), "is a folder"),
        (("--adapter", "x", "--suite", "nowhere"), "no suite"),
        (("--adapter", "x", "--set", "sampler.stepz=3"), "stepz"),
        (("--adapter", "x", "--base", "./nowhere"), "nowhere"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_drawn(
    call: Call, arguments: tuple[str, ...], problem: str
) -> None:
    code, err = call("audit", *arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert problem in err

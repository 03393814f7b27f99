"""Asks diffusers' own converters where the modules of a LoRA lie, by LoRA of rank one whose rows are numbered.

What a converter makes of real files is not taken over: it may drop what it does not know, or leave out alpha. An answer
counts where block numbers agree, since some converters take any name for that of a block.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from raymap.base.skeleton import Skeleton

Rows = list[tuple[str, torch.Tensor]]
"""The modules of the base that get a module's rows, and which rows each gets (n,), int64."""

STRIDE = 10_000_000
"""Numbers of rows of one module lie between its multiples of this; all are whole numbers that float64 holds."""
_UP = re.compile(r"(.+?)\.(?:lora_B|lora\.up|lora_linear_layer\.up)(?:\.default)?\.weight")
_BARE = re.compile(
    r"^(?:(?:model\.)?diffusion_model\.|base_model\.model\.|transformer\.|unet\.|lora_unet_|lora_transformer_|lycoris_)+"
)


def _as_is(module: str) -> str:
    return module


def _flat(module: str) -> str:
    return "lora_unet_" + _BARE.sub("", module).replace(".", "_")


def _dotted(module: str) -> str:
    return "diffusion_model." + _BARE.sub("", module)


SPELLINGS: tuple[tuple[Callable[[str], str], str, str], ...] = (
    (_as_is, "lora_down", "lora_up"),
    (_as_is, "lora_A", "lora_B"),
    (_flat, "lora_down", "lora_up"),
    (_dotted, "lora_A", "lora_B"),
    (_dotted, "lora_down", "lora_up"),
    (_as_is, "down", "up"),
)
"""How a question is spelled: the module, and its two halves. Converters know some modules in one spelling only."""


def asked(modules: Mapping[str, tuple[int, ...]], skeleton: Skeleton) -> dict[str, Rows]:
    """Return where diffusers' converter for a base's family puts modules; those are left out that it does not place.

    Args:
        modules: (out, in, …) of each, by names as a file spells them.
    """
    kind = skeleton.family.pipeline_class
    if not hasattr(kind, "lora_state_dict"):
        return {}
    left = {name: shape for name, shape in modules.items() if len(shape) > 1}
    found: dict[str, Rows] = {}
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # converters log what they do not know
    try:
        for spelling in SPELLINGS:
            for with_alpha in (True, False):
                if left:
                    found |= _answers(kind, spelling, with_alpha, left, skeleton)
                    left = {name: shape for name, shape in left.items() if name not in found}
    finally:
        logging.disable(previous)
    return found


def _answers(
    kind: Any,
    spelling: tuple[Callable[[str], str], str, str],
    with_alpha: bool,
    modules: Mapping[str, tuple[int, ...]],
    skeleton: Skeleton,
) -> dict[str, Rows]:
    """Return the answers in one spelling; a converter that fails is asked about each half, so that one unknown module
    keeps no other from being found."""
    try:
        state = _converted(kind, _question(spelling, with_alpha, modules))
    except Exception:  # whatever a converter raises about names that it does not know
        if len(modules) == 1:
            return {}
        names = list(modules)
        found: dict[str, Rows] = {}
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            found |= _answers(kind, spelling, with_alpha, {name: modules[name] for name in half}, skeleton)
        return found
    return _read(state, list(modules), skeleton)


def _question(
    spelling: tuple[Callable[[str], str], str, str], with_alpha: bool, modules: Mapping[str, tuple[int, ...]]
) -> dict[str, torch.Tensor]:
    spell, down, up = spelling
    question: dict[str, torch.Tensor] = {}
    for number, (name, (out, fan, *kernel)) in enumerate(modules.items(), 1):
        rows = torch.arange(out, dtype=torch.float64) + 1 + STRIDE * number
        question[f"{spell(name)}.{down}.weight"] = torch.ones(1, fan, *kernel, dtype=torch.float64)
        question[f"{spell(name)}.{up}.weight"] = rows.view(-1, 1, *[1] * len(kernel))
        if with_alpha:
            question[f"{spell(name)}.alpha"] = torch.tensor(1.0, dtype=torch.float64)
    return question


def _converted(kind: Any, question: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    answer = kind.lora_state_dict(question)
    state: dict[str, torch.Tensor] = answer[0] if isinstance(answer, tuple) else answer
    return state if any("lora_A" in key for key in state) else convert_unet_state_dict_to_peft(state)


def _read(state: Mapping[str, torch.Tensor], names: list[str], skeleton: Skeleton) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for key, value in state.items():
        match = _UP.fullmatch(key)
        module = _known(match[1], skeleton) if match else None
        if module is None or not value.numel():
            continue
        numbers = (value.flatten() + 0.5).long()
        number = int(numbers[0]) // STRIDE
        known = 1 <= number <= len(names) and bool((numbers // STRIDE == number).all())
        if known and _same_block(names[number - 1], module):
            found.setdefault(names[number - 1], []).append((module, numbers % STRIDE - 1))
    return found


def _same_block(spelled: str, module: str) -> bool:
    block = re.match(r"\w+\.\w+\.(\d+)\.", module)
    return block is None or re.search(rf"(?<![0-9]){block[1]}(?![0-9])", spelled) is not None


def _known(module: str, skeleton: Skeleton) -> str | None:
    """Return a module's name in the base; some converters leave out the component."""
    for name in (module, f"{skeleton.denoiser}.{module}"):
        if f"{name}.weight" in skeleton.shapes:
            return name
    return None

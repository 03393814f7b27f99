"""The keys of LoRA-like files: which module each belongs to, and which part of the module's update it is."""

from __future__ import annotations

import re
from collections.abc import Iterable

HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
KRONECKER = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
DOWN = r"lora_down\.weight|lora_A(\.[\w-]+)?\.weight|lora\.down\.weight|lora_linear_layer\.down\.weight|down\.weight"
UP = r"lora_up\.weight|lora_B(\.[\w-]+)?\.weight|lora\.up\.weight|lora_linear_layer\.up\.weight|up\.weight"
PARTS = {
    DOWN: "down",
    UP: "up",
    r"lora_mid\.weight": "mid",
    r"lora_B(\.[\w-]+)?\.bias": "up_bias",
    r"alpha": "alpha",
    r"scalar": "scalar",
    r"dora_scale": "magnitude",
    r"lora_magnitude_vector(\.(?!weight)[\w-]+)?(\.weight)?": "magnitude_rows",
    **{rf"{name}(\.default)?": name for name in HADAMARD},
    **{rf"{name}(\.default)?": name for name in KRONECKER},
    **{rf"{name}\.weight": name for name in ("a1", "a2", "b1", "b2", "bm")},
    r"diff|w_norm": "diff",
    r"diff_b|b_norm": "diff_b",
    r"on_input": "on_input",
    r"ia3_l(\.default)?": "ia3_l",
    r"oft_[rR](\.default)?(\.weight)?": "oft_r",
    r"boft_R(\.default)?": "boft_r",
    r"boft_s(\.default)?": "boft_s",
}  # fmt: skip
"""How the keys of a module end, and what that part of its update is called here."""
UNREAD = {
    r"\.oft_blocks$|\.oft_diag$|\.rescale$": "an OFT of kohya's or LyCORIS's kind",
    r"\.lora_embedding_[AB]\b": "a LoRA of token embeddings",
    r"\.vera_lambda_[bd]\b|\bvera_[AB]\b": "a VeRA",
    r"\.hra_u\b": "an HRA",
    r"\.(lora_)?(sparse_diff|bias_indices|bias_values|bias_size)$": "a LoRA with sparse biases",
}
"""How the keys of relatives end that are not read, and what they are called."""
LAX = {"down.weight", "up.weight", "alpha", "scalar", "rescale"}
"""Endings that other files have too, and that therefore tell nothing by themselves."""

_KNOWN = re.compile(r"(?P<module>.+?)\.(?P<end>" + "|".join(PARTS) + ")")
_NAMED = re.compile(r"(?P<module>.+)\.(?P<part>weight|bias)")
_PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out|add_[qkv]_proj|to_add_out)_lora\.")


def part_of(key: str) -> tuple[str, str] | None:
    """Return the module of a key, as the file spells it, and the part of its update; None where no ending is known.

    The names of older attention processors become those of the layers that they adapt.
    """
    turned = _PROCESSOR.sub(lambda m: f".{'to_out.0' if m[1] == 'to_out' else m[1]}.lora.", key)
    match = _KNOWN.fullmatch(turned)
    if match is None:
        named = _NAMED.fullmatch(turned)
        return (named["module"].removesuffix(".base_layer"), named["part"]) if named else None
    part = next(name for pattern, name in PARTS.items() if re.fullmatch(pattern, match["end"]))
    return match["module"], part


def unread_kind(keys: Iterable[str]) -> tuple[str, str] | None:
    """Return the first key of a kind that is not read, and what the kind is called; None where there is none."""
    for key in keys:
        for pattern, what in UNREAD.items():
            if re.search(pattern, key):
                return key, what
    return None


def is_lora_like(keys: Iterable[str]) -> bool:
    """Return whether the keys are those of a LoRA or of one of its relatives, of an unread kind too."""
    own = list(keys)
    if unread_kind(own):
        return True
    for key in own:
        match = _KNOWN.fullmatch(_PROCESSOR.sub(".lora.", key))
        if match and match["end"] not in LAX:
            return True
    ends = {match["end"] for key in own if (match := _KNOWN.fullmatch(key))}
    return ends >= {"down.weight", "up.weight"}

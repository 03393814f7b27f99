"""One module of a LoRA-like file: its kind, the shape of its ΔW, and the updates that its parts stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from raymap.adapters.algebra import (
    Decomposed,
    Difference,
    Factors,
    Generalized,
    Hadamard,
    Kronecker,
    Rescaled,
    Rotated,
    side_of,
)
from raymap.adapters.update import Additive, LowRank, Update

Extent = tuple[int, ...]

LORA, LOHA, LOKR, GLORA, FULL, IA3, OFT, BOFT = "lora", "loha", "lokr", "glora", "full", "ia3", "oft", "boft"
TITLES = {
    LORA: "a LoRA", LOHA: "a LoHa", LOKR: "a LoKr", GLORA: "a GLoRA", FULL: "a whole difference", IA3: "an IA3",
    OFT: "an OFT",
    BOFT: "a BOFT",
}  # fmt: skip
NEEDED: Mapping[str, tuple[frozenset[str], ...]] = {
    LORA: (frozenset({"down", "up"}),),
    LOHA: (frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),),
    LOKR: tuple(
        frozenset({*left, *right})
        for left in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for right in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
    GLORA: (frozenset({"a1", "a2", "b1", "b2"}),),
    FULL: (frozenset({"diff"}), frozenset({"diff_b"}), frozenset({"diff", "diff_b"})),
    IA3: (frozenset({"weight", "on_input"}), frozenset({"ia3_l"})),
    OFT: (frozenset({"oft_r"}),),
    BOFT: (frozenset({"boft_r", "boft_s"}),),
}
"""The parts that make up a module of each kind; one of the sets has to be there whole."""
BESIDE: Mapping[str, frozenset[str]] = {
    LORA: frozenset({"mid", "up_bias", "diff_b"}),
    LOHA: frozenset({"hada_t1", "hada_t2", "diff_b"}),
    LOKR: frozenset({"lokr_t2", "diff_b"}),
    GLORA: frozenset({"bm"}),
}
"""The parts that a module of a kind may have besides."""
SCALING = frozenset({"alpha", "scalar", "magnitude", "magnitude_rows"})
"""The parts that scale what the others yield."""


@dataclass(frozen=True)
class Scaling:
    """What is known of an update's scale besides its file's `alpha`: a configuration's alpha and rank, if it has them.

    `stabilized` divides by √rank instead of the rank (Kalajdzievski 2023). `terms` is as in `Rotated`.
    """

    alpha: float | None = None
    rank: int | None = None
    stabilized: bool = False
    terms: int | None = None


@dataclass
class Module:
    """The parts of one module of a file, by name; `key` is one of its keys."""

    key: str
    parts: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str | None:
        """The kind of update; None where no parts of any kind are whole, or parts of another kind stand beside."""
        own = self.parts.keys() - SCALING
        for kind, needed in NEEDED.items():
            rest = BESIDE.get(kind, frozenset())
            if any(parts <= own and own - parts <= rest for parts in needed):
                return kind
        return None

    @property
    def lacking(self) -> str:
        """What the parts of no whole kind lack, in words."""
        own = self.parts.keys() - SCALING
        kind, needed = max(
            ((kind, parts) for kind, sets in NEEDED.items() for parts in sets), key=lambda one: len(one[1] & own)
        )
        beyond = own - needed - BESIDE.get(kind, frozenset())
        if kind == LORA and not beyond:
            return "its other half is missing"
        missing = f"lacks {' and '.join(sorted(needed - own))} of {TITLES[kind]}" if needed - own else ""
        return missing or f"has {' and '.join(sorted(beyond))} beside the parts of {TITLES[kind]}"

    @property
    def extent(self) -> Extent:
        """The shape of ΔW as far as the parts tell it.

        Raises:
            ValueError: the parts do not fit each other.
        """
        return extent_of(self.kind, self.parts)


def extent_of(kind: str | None, parts: Mapping[str, torch.Tensor]) -> Extent:
    """Return the shape of a module's ΔW as far as its parts tell it; raises ValueError as `Module.extent`."""
    match kind:
        case "lora":
            down, up = parts["down"], parts["up"]
            _need(down.dim() >= 2 and up.dim() >= 2 and down.numel() > 0 and up.numel() > 0, parts)
            return (up.shape[0], down.shape[1], *parts.get("mid", down).shape[2:])
        case "loha":
            return _loha(parts)[0].shape
        case "lokr":
            left, right = _lokr(parts)
            (a, b), (c, d, *kernel) = left.shape, right.shape
            return (a * c, b * d, *kernel)
        case "glora":
            _, _, out, into = _glora(parts)
            return (out.shape[0], into.shape[1], *parts.get("bm", into).shape[2:])
        case "full":
            return tuple(parts["diff"].shape if "diff" in parts else parts["diff_b"].shape)
        case "ia3":
            factor, by_column = _ia3(parts)
            return () if by_column else (factor.numel(),)
    return ()


def updates_of(
    kind: str, parts: Mapping[str, torch.Tensor], shape: Extent | None, has_bias: bool, scaling: Scaling
) -> tuple[Update | None, Update | None]:
    """Return the updates of a module's weight and bias.

    Args:
        shape: of the file's module, whose rows several modules of the base may share; None: a bias alone.
        has_bias: whether the base's module has a bias.

    Raises:
        ValueError: the parts do not fit each other or the shape.
    """
    bias: Update | None = None
    if kind == IA3:
        ratio, by_column = _ia3(parts)
        with_bias = "ia3_l" in parts and has_bias and not by_column
        return Rescaled(ratio, by_column), Rescaled(ratio) if with_bias else None
    if kind == OFT:
        return _rotated(parts["oft_r"], scaling.terms), None
    if kind == BOFT:
        return _butterfly(parts["boft_r"], parts["boft_s"]), None
    if kind == FULL:
        weight = Difference(parts["diff"]) if "diff" in parts else None
        bias = Difference(parts["diff_b"]) if "diff_b" in parts else None
        return weight, bias
    if shape is None or len(shape) < 2:
        raise ValueError("it changes a layer of the base that has no matrix")
    factor = _scale(kind, parts, scaling)
    update = _generalized(parts, factor) if kind == GLORA else _additive(kind, parts, factor, shape)
    if "up_bias" in parts:
        bias = Difference(parts["up_bias"].flatten(), factor)
    if "diff_b" in parts:
        bias = Difference(parts["diff_b"])
    if isinstance(update, Additive) and ("magnitude" in parts or "magnitude_rows" in parts):
        return _decomposed(update, parts, shape), bias
    return update, bias


def _scale(kind: str, parts: Mapping[str, torch.Tensor], scaling: Scaling) -> float:
    rank = _rank(kind, parts)
    alpha = scaling.alpha
    if "alpha" in parts:
        _need(parts["alpha"].numel() == 1, parts)
        alpha = float(parts["alpha"].item())
    if rank is None:  # a LoKr whose factors are both whole has no rank, and is scaled by a configuration alone
        plain = "alpha" in parts or scaling.alpha is None or not scaling.rank
        scale = 1.0 if plain else float(scaling.alpha or 0) / float(scaling.rank or 1)
    else:
        divisor = scaling.rank if kind == LOKR and "alpha" not in parts and scaling.rank else rank
        scale = (divisor if alpha is None else alpha) / (divisor**0.5 if scaling.stabilized else divisor)
    if "scalar" in parts:
        _need(parts["scalar"].numel() == 1, parts)
        scale *= float(parts["scalar"].item())
    return scale


def _rank(kind: str, parts: Mapping[str, torch.Tensor]) -> int | None:
    match kind:
        case "lora":
            return len(parts["down"])
        case "loha":
            return len(parts["hada_w1_b"])
        case "glora":
            return len(_glora(parts)[1])
    return next((len(parts[name]) for name in ("lokr_w2_b", "lokr_w1_b") if name in parts), None)


def _additive(kind: str, parts: Mapping[str, torch.Tensor], scale: float, shape: Extent) -> Additive:
    if kind == LORA:
        return _low_rank(parts["down"], parts["up"], parts.get("mid"), scale)
    if kind == LOHA:
        return Hadamard(*_loha(parts), scale)
    left, right = _lokr(parts)
    return Kronecker(left, right, scale, shape[2:] if len(right.shape) == 2 else ())


def _low_rank(down: torch.Tensor, up: torch.Tensor, core: torch.Tensor | None, scale: float) -> LowRank:
    """Return a low-rank update; a Tucker core between the halves is multiplied with the first."""
    own = {"down": down, "up": up} | ({} if core is None else {"mid": core})
    down, up = down if core is None else down.flatten(1), up.flatten(1)
    if core is not None:
        _need(core.dim() > 2 and core.shape[:2] == (up.shape[1], len(down)), own)
        down = torch.einsum("ij...,jr->ir...", core, down)
    down = down.flatten(1)
    _need(up.shape[1] == down.shape[0], own)
    return LowRank(down.contiguous(), up.contiguous(), scale)


def _loha(parts: Mapping[str, torch.Tensor]) -> tuple[Factors, Factors]:
    first, second = (Factors(parts[f"hada_w{k}_b"], parts[f"hada_w{k}_a"], parts.get(f"hada_t{k}")) for k in (1, 2))
    _need(first.shape == second.shape and len(first.shape) > 1, parts)
    return first, second


def _lokr(parts: Mapping[str, torch.Tensor]) -> tuple[Factors, Factors]:
    left, right = (
        Factors(parts[f"lokr_w{k}"])
        if f"lokr_w{k}" in parts
        else Factors(parts[f"lokr_w{k}_b"], parts[f"lokr_w{k}_a"], parts.get("lokr_t2") if k == 2 else None)
        for k in (1, 2)
    )
    _need(len(left.shape) == 2 and len(right.shape) > 1 and math.prod(left.shape) * math.prod(right.shape) > 0, parts)
    return left, right


def _glora(parts: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a1, a2, b1, b2 of ΔW = W·a1·a2 + b1·b2; LyCORIS named the halves the other way round at first."""
    a1, a2, b1, b2 = (parts[name] for name in ("a1", "a2", "b1", "b2"))
    _need(all(one.dim() > 1 for one in (a1, a2, b1, b2)), parts)
    now = a1.shape[1] == a2.shape[0] == b1.shape[1] and ("bm" in parts or b2.shape[0] == b1.shape[1])
    a1, a2, b1, b2 = (a1, a2, b1, b2) if now else (a2, a1, b2, b1)
    _need(a1.shape[1] == a2.shape[0] and a1.shape[0] == a2.shape[1], parts)
    return a1.flatten(1), a2.flatten(1), b1, b2


def _generalized(parts: Mapping[str, torch.Tensor], scale: float) -> Generalized:
    first, second, out, into = _glora(parts)
    return Generalized(first.contiguous(), second.contiguous(), _low_rank(into, out, parts.get("bm"), scale), scale)


def _ia3(parts: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, bool]:
    """Return by what IA3 multiplies W to get ΔW, and whether that is by columns.

    LyCORIS keeps what is added to one, peft the factor itself; peft's shape is that of what it multiplies.
    """
    if "ia3_l" in parts:
        factor = parts["ia3_l"]
        _need(factor.dim() >= 2 and factor.numel() == max(factor.shape[:2]), parts)
        return factor.flatten() - 1, factor.shape[0] == 1 and factor.shape[1] > 1
    _need(parts["on_input"].numel() == 1 and parts["weight"].numel() == max(parts["weight"].shape, default=0), parts)
    return parts["weight"].flatten(), bool(parts["on_input"].item())


def _rotated(triangles: torch.Tensor, terms: int | None) -> Rotated:
    _need(triangles.dim() == 2, {"oft_r": triangles})
    return Rotated(triangles, side_of(triangles.shape[1]), terms)


def _butterfly(blocks: torch.Tensor, scale: torch.Tensor) -> Rotated:
    """Return a BOFT of one butterfly factor, the only number that peft trains without a CUDA extension of its own."""
    _need(blocks.dim() == 4 and len(blocks) == 1 and blocks.shape[2] == blocks.shape[3] > 1, {"boft_R": blocks})
    skew = 0.5 * (blocks[0] - blocks[0].transpose(1, 2))
    above = torch.triu_indices(skew.shape[1], skew.shape[1], 1)
    return Rotated(skew[:, above[0], above[1]], skew.shape[1], None, scale.flatten())


def _decomposed(update: Additive, parts: Mapping[str, torch.Tensor], shape: Extent) -> Decomposed:
    magnitude = parts.get("magnitude", parts.get("magnitude_rows"))
    if magnitude is None:
        return Decomposed(update, torch.empty(0))
    by_rows = "magnitude_rows" in parts or magnitude.dim() == 1 or len(magnitude) == magnitude.numel() == shape[0]
    _need(magnitude.numel() == shape[0 if by_rows else 1], {"dora_scale": magnitude})
    return Decomposed(update, magnitude.flatten(), not by_rows)


def _need(fits: bool, parts: Mapping[str, torch.Tensor]) -> None:
    if not fits:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in parts.items())
        raise ValueError(f"its parts do not fit each other ({shapes})")

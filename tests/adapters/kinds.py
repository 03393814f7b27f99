"""Files of every kind of LoRA's relatives for one module, and ΔW of each by a direct formula in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Tensors = dict[str, torch.Tensor]
Formula = Callable[[torch.Tensor], torch.Tensor]
"""ΔW of the base's weight, both in float64."""
R = 3
ALPHA = 1.5


class Maker:
    """Makes random factors, the same for the same seed."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.out, self.into, *kernel = shape
        self.shape, self.kernel = shape, tuple(kernel)
        self.ones = (1,) * len(kernel)
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(shape, generator=self._random)


def lora(make: Maker) -> tuple[Tensors, Formula]:
    down, up = make(R, make.into, *make.kernel), make(make.out, R, *make.ones)
    parts = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}
    return parts, lambda w: ALPHA / R * torch.einsum("or,ri...->oi...", up.double().flatten(1), down.double())


def scaled(make: Maker) -> tuple[Tensors, Formula]:
    parts, delta = lora(make)
    return parts | {"scalar": torch.tensor(0.7)}, lambda w: float(torch.tensor(0.7)) * delta(w)


def tucker(make: Maker) -> tuple[Tensors, Formula]:
    down, mid, up = make(R, make.into, *make.ones), make(4, R, *make.kernel), make(make.out, 4, *make.ones)
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}

    def delta(w: torch.Tensor) -> torch.Tensor:
        a, b, c = up.double().flatten(1), mid.double(), down.double().flatten(1)
        kernels = torch.stack([torch.einsum("k...,ki->i...", b[j], c) for j in range(4)])
        return ALPHA / R * torch.einsum("oj,ji...->oi...", a, kernels)

    return parts, delta


def loha(make: Maker) -> tuple[Tensors, Formula]:
    flat = make.into * math.prod(make.kernel)
    a1, b1, a2, b2 = make(make.out, R), make(R, flat), make(make.out, R), make(R, flat)
    parts = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(ALPHA)}
    product = (a1.double() @ b1.double()) * (a2.double() @ b2.double())
    return parts, lambda w: ALPHA / R * product.reshape(w.shape)


def loha_tucker(make: Maker) -> tuple[Tensors, Formula]:
    parts: Tensors = {"alpha": torch.tensor(ALPHA)}
    kernels = []
    for k in (1, 2):
        core, a, b = make(R, R, *make.kernel), make(R, make.out), make(R, make.into)
        parts |= {f"hada_t{k}": core, f"hada_w{k}_a": a, f"hada_w{k}_b": b}
        kernels.append(torch.einsum("pq...,po,qi->oi...", core.double(), a.double(), b.double()))
    return parts, lambda w: ALPHA / R * kernels[0] * kernels[1]


def kronecker(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    a, b, (c, d, *rest) = *left.shape, right.shape
    return torch.einsum("ab,cd...->acbd...", left, right).reshape(a * c, b * d, *rest)


def lokr(make: Maker) -> tuple[Tensors, Formula]:
    left, a, b = make(4, 4), make(make.out // 4, R), make(R, make.into // 4 * math.prod(make.kernel))
    parts = {"lokr_w1": left, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(ALPHA)}
    right = (a.double() @ b.double()).reshape(make.out // 4, make.into // 4, *make.kernel)
    return parts, lambda w: ALPHA / R * kronecker(left.double(), right)


def lokr_factored(make: Maker) -> tuple[Tensors, Formula]:
    parts, _ = lokr(make)
    left_a, left_b = make(4, 2), make(2, 4)
    del parts["lokr_w1"]
    right = parts["lokr_w2_a"].double() @ parts["lokr_w2_b"].double()
    right = right.reshape(make.out // 4, make.into // 4, *make.kernel)
    left = left_a.double() @ left_b.double()
    return parts | {"lokr_w1_a": left_a, "lokr_w1_b": left_b}, lambda w: ALPHA / R * kronecker(left, right)


def lokr_whole(make: Maker) -> tuple[Tensors, Formula]:
    """LyCORIS writes a meaningless alpha beside whole factors."""
    left, right = make(4, 2), make(make.out // 4, make.into // 2, *make.kernel)
    parts = {"lokr_w1": left, "lokr_w2": right, "alpha": torch.tensor(9.0)}
    return parts, lambda w: kronecker(left.double(), right.double())


def dora(
    inner: Callable[[Maker], tuple[Tensors, Formula]], columns: bool
) -> Callable[[Maker], tuple[Tensors, Formula]]:
    def made(make: Maker) -> tuple[Tensors, Formula]:
        parts, added = inner(make)
        size = make.into if columns else make.out
        magnitude = 1 + make(size)
        shape = (1, size, *make.ones) if columns else (size, 1, *make.ones)

        def delta(w: torch.Tensor) -> torch.Tensor:
            turned = w + added(w)
            rows = turned.movedim(1 if columns else 0, 0).flatten(1)
            length = rows.square().sum(1).sqrt().view(shape)
            return turned * magnitude.double().view(shape) / length - w

        return parts | {"dora_scale": magnitude.view(shape)}, delta

    return made


def ia3(columns: bool) -> Callable[[Maker], tuple[Tensors, Formula]]:
    def made(make: Maker) -> tuple[Tensors, Formula]:
        size = make.into if columns else make.out
        shape = (1, size, *make.ones) if columns else (size, 1, *make.ones)
        factor = make(*shape)
        return {"weight": factor, "on_input": torch.tensor(columns)}, lambda w: w * factor.double()

    return made


def glora(make: Maker) -> tuple[Tensors, Formula]:
    a1, a2 = make(make.into, R, *make.ones), make(R, make.into, *make.ones)
    b1, b2 = make(make.out, R, *make.ones), make(R, make.into, *make.kernel)
    parts = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(ALPHA)}

    def delta(w: torch.Tensor) -> torch.Tensor:
        mixing = a1.double().flatten(1) @ a2.double().flatten(1)
        own = torch.einsum("oi...,ij->oj...", w, mixing)
        return ALPHA / R * (own + torch.einsum("or,ri...->oi...", b1.double().flatten(1), b2.double()))

    return parts, delta


def whole(make: Maker) -> tuple[Tensors, Formula]:
    difference = make(*make.shape)
    return {"diff": difference}, lambda w: difference.double()


KINDS: dict[str, tuple[str, Callable[[Maker], tuple[Tensors, Formula]]]] = {
    "LoRA": ("lora", lora),
    "LoRA with a scalar": ("lora", scaled),
    "LoHa": ("loha", loha),
    "LoKr": ("lokr", lokr),
    "LoKr, both factored": ("lokr", lokr_factored),
    "LoKr, whole factors": ("lokr", lokr_whole),
    "DoRA by rows": ("dora", dora(lora, columns=False)),
    "DoRA by columns": ("dora", dora(lora, columns=True)),
    "LoHa with DoRA": ("dora", dora(loha, columns=False)),
    "IA3 by rows": ("ia3", ia3(columns=False)),
    "IA3 by columns": ("ia3", ia3(columns=True)),
    "GLoRA": ("glora", glora),
    "whole difference": ("full", whole),
}
"""What raymap calls each kind, and what makes a module of it."""
OF_CONVOLUTIONS: dict[str, tuple[str, Callable[[Maker], tuple[Tensors, Formula]]]] = {
    "LoCon with a Tucker core": ("lora", tucker),
    "LoHa with Tucker cores": ("loha", loha_tucker),
}
"""The same for kinds that are of convolutions alone."""

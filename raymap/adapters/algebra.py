"""The updates of LoRA's relatives: what each kind of file means by its tensors.

All tensors are float32; weights of convolutions are (out, in, height, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from raymap.adapters.update import Additive, Held, Update


@dataclass(frozen=True)
class Factors(Held):
    """A matrix or kernel as a file holds it: whole, as the product of `out` and `into`, or with a Tucker core between.

    Without a core, `out` is (rows, rank) and `into` (rank, columns, …); with one, `out` is (rank, rows).
    """

    into: torch.Tensor
    out: torch.Tensor | None = None
    core: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what the factors stand for.

        Raises:
            ValueError: they do not fit each other.
        """
        into, out, core = self.into, self.out, self.core
        if out is None:
            return tuple(into.shape)
        if core is None:
            fits = into.dim() >= 2 and out.dim() == 2 and out.shape[1] == into.shape[0]
            shape = (out.shape[0], *into.shape[1:])
        else:
            fits = into.dim() == out.dim() == 2 and core.dim() > 2 and core.shape[:2] == (len(out), len(into))
            shape = (out.shape[-1], into.shape[-1], *core.shape[2:])
        if not fits:
            raise ValueError("its factors do not fit each other")
        return tuple(shape)

    def product(self) -> torch.Tensor:
        """Return what the factors stand for: (rows, columns), or (rows, columns, height, width)."""
        if self.out is None:
            return self.into
        if self.core is not None:
            return torch.einsum("ij...,ip,jr->pr...", self.core, self.out, self.into)
        return torch.einsum("or,r...->o...", self.out, self.into)

    def rows(self, index: torch.Tensor) -> Factors:
        """Return the factors of some rows; `out` is there."""
        assert self.out is not None
        return replace(self, out=self.out[index] if self.core is None else self.out[:, index])


@dataclass(frozen=True)
class Difference(Additive):
    """ΔW as such: `diff` and `diff_b` of whole differences, `w_norm` and `b_norm` of normalizations."""

    value: torch.Tensor
    scale: float = 1.0

    @property
    def flat(self) -> tuple[int, ...]:
        shape = tuple(self.value.shape)
        return shape if len(shape) < 2 else (shape[0], math.prod(shape[1:]))

    def matrix(self) -> torch.Tensor:
        flat = self.value.flatten(1) if self.value.dim() > 1 else self.value
        return flat if self.scale == 1 else self.scale * flat

    def rows(self, index: torch.Tensor) -> Difference:
        return Difference(self.value[index], self.scale)


@dataclass(frozen=True)
class Rows(Additive):
    """Some rows of an update whose factors cannot be parted."""

    whole: Additive
    index: torch.Tensor

    @property
    def flat(self) -> tuple[int, ...]:
        return len(self.index), *self.whole.flat[1:]

    def matrix(self) -> torch.Tensor:
        return self.whole.matrix()[self.index]

    def rows(self, index: torch.Tensor) -> Rows:
        return Rows(self.whole, self.index[index])


@dataclass(frozen=True)
class Hadamard(Additive):
    """LoHa (Hyeon-Woo et al. 2022): ΔW = scale · (first ∘ second), a product by elements of two low-rank matrices."""

    first: Factors
    second: Factors
    scale: float

    @property
    def flat(self) -> tuple[int, ...]:
        out, *rest = self.first.shape
        return out, math.prod(rest)

    def matrix(self) -> torch.Tensor:
        return self.scale * (self.first.product() * self.second.product()).flatten(1)

    def rows(self, index: torch.Tensor) -> Hadamard:
        return Hadamard(self.first.rows(index), self.second.rows(index), self.scale)


@dataclass(frozen=True)
class Kronecker(Additive):
    """LoKr (Yeh et al. 2024): ΔW = scale · left ⊗ right.

    `kernel` is the height and width of a convolution's kernel where a flat right factor holds it with its columns.
    """

    left: Factors
    right: Factors
    scale: float
    kernel: tuple[int, ...] = ()

    @property
    def flat(self) -> tuple[int, ...]:
        (a, b), (c, *rest) = self.left.shape, self.right.shape
        return a * c, b * math.prod(rest)

    def matrix(self) -> torch.Tensor:
        left, right = self.left.product(), self.right.product()
        if self.kernel:
            right = right.reshape(right.shape[0], -1, *self.kernel)
        left = left.reshape(*left.shape, *[1] * (right.dim() - 2))
        return self.scale * torch.kron(left, right.contiguous()).flatten(1)

    def rows(self, index: torch.Tensor) -> Rows:
        return Rows(self, index)


@dataclass(frozen=True)
class Decomposed(Update):
    """DoRA (Liu et al. 2024): W + ΔW = magnitude · (W + V) / ‖W + V‖, where V is what the inner update adds.

    The norm is that of each row (output channel), or of each column (input channel) where LyCORIS trained it so.
    """

    inner: Additive
    magnitude: torch.Tensor
    """(out,) or (in,)."""

    by_column: bool = False

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        own = base.float()
        turned = own + self.inner.delta(own)
        axis = 1 if self.by_column else 0
        others = tuple(d for d in range(turned.dim()) if d != axis)
        length = torch.linalg.vector_norm(turned, dim=others, keepdim=True)
        magnitude = _along(self.magnitude, axis, turned.dim())
        return torch.where(length > 0, turned * (magnitude / length), 0) - own

    def fits(self, shape: tuple[int, ...]) -> bool:
        return self.inner.fits(shape) and len(shape) > 1 and len(self.magnitude) == shape[1 if self.by_column else 0]

    def rows(self, index: torch.Tensor) -> Decomposed:
        if self.by_column:
            raise ValueError("it is a DoRA over the columns of a layer that the base has in several parts")
        return Decomposed(self.inner.rows(index), self.magnitude[index])


@dataclass(frozen=True)
class Rescaled(Update):
    """IA3 (Liu et al. 2022): ΔW = factor · W, by rows (out,) or by columns (in,); a bias is scaled as its rows are."""

    factor: torch.Tensor
    by_column: bool = False

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        return base.float() * _along(self.factor, 1 if self.by_column else 0, base.dim())

    def fits(self, shape: tuple[int, ...]) -> bool:
        axis = 1 if self.by_column else 0
        return len(shape) > axis and len(self.factor) == shape[axis]

    def rows(self, index: torch.Tensor) -> Rescaled:
        return self if self.by_column else Rescaled(self.factor[index])


@dataclass(frozen=True)
class Generalized(Update):
    """GLoRA (Chavan et al. 2023): ΔW = scale · (W·first·second + added), where W's input channels are multiplied.

    `first` is (in, rank) and `second` (rank, in).
    """

    first: torch.Tensor
    second: torch.Tensor
    added: Additive
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        own = base.float()
        turned = torch.einsum("oi...,ir,rj->oj...", own, self.first, self.second)
        return self.scale * turned + self.added.delta(own)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and self.added.fits(shape) and len(self.first) == shape[1]

    def rows(self, index: torch.Tensor) -> Generalized:
        return Generalized(self.first, self.second, self.added.rows(index), self.scale)


@dataclass(frozen=True)
class Rotated(Update):
    """OFT and BOFT as peft defines them (Qiu et al. 2023; Liu et al. 2024): W + ΔW = scale · W·Rᵀ.

    R turns the inputs, block by block, and the scale, where there is one, is that of each row (out,).

    A row of `triangles` (blocks, side · (side − 1) / 2) holds the upper triangle of a block's skew-symmetric Q; a
    single row stands for all blocks. R is the Cayley transform (I − Q)(I + Q)⁻¹, or, where `terms` is given, peft's
    truncated series for (I + Q)(I − Q)⁻¹, which is I + 2Q + 2Q² + … and counts its last power once.
    """

    triangles: torch.Tensor
    side: int
    terms: int | None = None
    scale: torch.Tensor | None = None

    def turning(self) -> torch.Tensor:
        """Return R of each block (blocks, side, side)."""
        skew = self.triangles.new_zeros(len(self.triangles), self.side, self.side)
        above = torch.triu_indices(self.side, self.side, 1)
        skew[:, above[0], above[1]] = self.triangles
        skew = skew - skew.transpose(1, 2)
        one = torch.eye(self.side, dtype=skew.dtype, device=skew.device).expand_as(skew)
        if self.terms is None:
            return torch.linalg.solve(one + skew, one - skew, left=False)
        if self.terms < 2:
            return one
        turning, power = one + 2 * skew, skew
        if self.terms == 2:
            return turning
        for _ in range(2, max(self.terms, 4) - 1):
            power = power @ skew
            turning = turning + 2 * power
        return turning + power @ skew

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        own = base.float()
        flat = own.flatten(1)
        blocks = flat.shape[1] // self.side
        turned = flat.view(len(flat), blocks, self.side)
        turning = self.turning().expand(blocks, -1, -1)
        now = torch.einsum("obi,bji->obj", turned, turning).reshape(flat.shape)
        return ((now if self.scale is None else self.scale[:, None] * now) - flat).view(own.shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        blocks, left = divmod(math.prod(shape[1:]), self.side)
        scaled = self.scale is None or len(self.scale) == shape[0]
        return len(shape) > 1 and left == 0 and len(self.triangles) in (1, blocks) and scaled

    def rows(self, index: torch.Tensor) -> Rotated:
        return self if self.scale is None else replace(self, scale=self.scale[index])


def _along(values: torch.Tensor, axis: int, dimensions: int) -> torch.Tensor:
    return values.view([-1 if d == axis else 1 for d in range(dimensions)])


def side_of(triangle: int) -> int:
    """Return how long the side of a skew-symmetric block is, of which so many numbers are above the diagonal.

    Raises:
        ValueError: no block has so many.
    """
    side = (1 + math.isqrt(1 + 8 * triangle)) // 2
    if triangle < 1 or side * (side - 1) // 2 != triangle:
        raise ValueError(f"{triangle} numbers are no triangle of a square block")
    return side

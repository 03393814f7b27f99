"""The one form that every adapter takes here, whatever its method or file: updates of named weights, new tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

TEXT = "text_encoder"
"""Every pipeline of diffusers names its text encoders so; all other weights that adapters update are the denoiser's."""


@dataclass(frozen=True)
class LowRank:
    """An additive update of one weight: scale · up @ down, with down (rank, in) and up (out, rank), float32.

    The update of a convolution is flattened: `in` is then input channels × kernel height × kernel width.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @property
    def size(self) -> int:
        """How many numbers the update holds."""
        return self.down.numel() + self.up.numel()

    def norm(self, base: torch.Tensor) -> float:
        """Return the Frobenius norm of ΔW, from rank × rank matrices in float64."""
        down, up = self.down.double(), self.up.double()
        squared = torch.trace((up.T @ up) @ (down @ down.T)).clamp(min=0)
        return abs(self.scale) * float(squared.sqrt())

    def to(self, device: torch.device) -> LowRank:
        return LowRank(self.down.to(device), self.up.to(device), self.scale)

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        """Return ΔW in the base weight's shape, float32."""
        return (self.scale * (self.up @ self.down)).view(base.shape)

    def write(self, base: torch.Tensor, live: torch.Tensor, alpha: float) -> None:
        """Write base + alpha · ΔW into the live weight, in place."""
        if base.dtype == torch.float32 and base.dim() == 2:
            torch.addmm(base, self.up, self.down, alpha=alpha * self.scale, out=live)
        else:
            flat = base.reshape(base.shape[0], -1).float()
            live.copy_(torch.addmm(flat, self.up, self.down, alpha=alpha * self.scale).view(base.shape))


@dataclass(frozen=True)
class Replacement:
    """A weight that replaces the base's whole, float32: Custom Diffusion's keys and values, for example."""

    weight: torch.Tensor

    @property
    def size(self) -> int:
        """How many numbers the update holds."""
        return self.weight.numel()

    def norm(self, base: torch.Tensor) -> float:
        """Return the Frobenius norm of ΔW."""
        return float(torch.linalg.norm(self.delta(base).double()))

    def to(self, device: torch.device) -> Replacement:
        return Replacement(self.weight.to(device))

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        """Return ΔW in the base weight's shape, float32."""
        return self.weight - base.float()

    def write(self, base: torch.Tensor, live: torch.Tensor, alpha: float) -> None:
        """Write base + alpha · (weight − base) into the live weight, in place; exact at alpha 0 and 1."""
        if alpha == 1:
            live.copy_(self.weight)
        else:
            live.copy_(torch.lerp(base.float(), self.weight, alpha))


Update = LowRank | Replacement


@dataclass(frozen=True)
class Token:
    """A learned token: where the tokenizer finds `trigger`, the text encoder gets `vectors` (n, width), float32."""

    trigger: str
    vectors: torch.Tensor

    @property
    def names(self) -> list[str]:
        """The tokenizer entries of the vectors, named as diffusers names them."""
        return [self.trigger, *(f"{self.trigger}_{k}" for k in range(1, len(self.vectors)))]


@dataclass(frozen=True)
class Adapter:
    """A personalization: updates by parameter name (`unet.….weight`, `text_encoder.….weight`) and new tokens.

    `rows`, if any, replaces the whole token embedding (vocabulary, width); a training that let other rows drift has it.
    """

    updates: Mapping[str, Update]
    tokens: tuple[Token, ...] = ()
    rows: torch.Tensor | None = None

    @property
    def touches_denoiser(self) -> bool:
        """Whether a weight of the denoiser changes; if none does, equal prompt embeddings give equal images."""
        return any(not name.startswith(TEXT) for name in self.updates)

    @property
    def touches_text(self) -> bool:
        """Whether tokenizer or text encoder change, so that prompts have to be encoded again."""
        return bool(self.tokens) or self.rows is not None or any(n.startswith(TEXT) for n in self.updates)

    @property
    def triggers(self) -> tuple[str, ...] | None:
        """The triggers without which a prompt is drawn as by the base; None if an image may change without them."""
        return None if self.updates or self.rows is not None else tuple(token.trigger for token in self.tokens)

    @property
    def size(self) -> int:
        """How many numbers the adapter holds."""
        rows = 0 if self.rows is None else self.rows.numel()
        return sum(u.size for u in self.updates.values()) + sum(t.vectors.numel() for t in self.tokens) + rows


def merged(parts: list[Adapter]) -> Adapter:
    """Return one adapter of what several files hold.

    Raises:
        ValueError: two files update the same weight, or have the same trigger.
    """
    updates: dict[str, Update] = {}
    tokens: list[Token] = []
    rows = None
    for part in parts:
        if twice := updates.keys() & part.updates.keys():
            raise ValueError(f"two files update {min(twice)}")
        if {t.trigger for t in tokens} & {t.trigger for t in part.tokens}:
            raise ValueError("two files have the same trigger")
        updates |= part.updates
        tokens += part.tokens
        rows = part.rows if part.rows is not None else rows
    return Adapter(updates, tuple(tokens), rows)

"""The one form that every adapter takes here, whatever its method or file: updates of named weights, new tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from raymap.base.parts import is_text


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
    """A learned token: where a tokenizer finds `trigger`, its text encoder gets vectors (n, width), float32.

    `vectors` has those of each text encoder that learned the token, equally many; others read the trigger as text.
    """

    trigger: str
    vectors: Mapping[str, torch.Tensor]

    @property
    def length(self) -> int:
        """How many vectors a text encoder gets."""
        return max(len(vectors) for vectors in self.vectors.values())

    @property
    def names(self) -> list[str]:
        """The tokenizer entries of the vectors, named as diffusers names them."""
        return [self.trigger, *(f"{self.trigger}_{k}" for k in range(1, self.length))]

    @property
    def size(self) -> int:
        """How many numbers the token holds."""
        return sum(vectors.numel() for vectors in self.vectors.values())


@dataclass(frozen=True)
class Adapter:
    """A personalization: updates by parameter name (`unet.….weight`, `text_encoder.….weight`) and new tokens.

    `rows` replaces the whole token embedding (vocabulary, width) of text encoders, by their names; a training that let
    other rows drift has them. `notes` are sentences about how its files were read that their user should know.
    """

    updates: Mapping[str, Update]
    tokens: tuple[Token, ...] = ()
    rows: Mapping[str, torch.Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def touches_denoiser(self) -> bool:
        """Whether a weight of the denoiser changes; if none does, equal prompt embeddings give equal images."""
        return any(not is_text(name) for name in self.updates)

    @property
    def touches_text(self) -> bool:
        """Whether tokenizers or text encoders change, so that prompts have to be encoded again."""
        return bool(self.tokens or self.rows) or any(is_text(name) for name in self.updates)

    @property
    def triggers(self) -> tuple[str, ...] | None:
        """The triggers without which a prompt is drawn as by the base; None if an image may change without them."""
        return None if self.updates or self.rows else tuple(token.trigger for token in self.tokens)

    @property
    def size(self) -> int:
        """How many numbers the adapter holds."""
        numbers = [rows.numel() for rows in self.rows.values()] + [token.size for token in self.tokens]
        return sum(update.size for update in self.updates.values()) + sum(numbers)


def merged(parts: list[Adapter]) -> Adapter:
    """Return one adapter of what several files hold; a token may have its vectors for each text encoder in another.

    Raises:
        ValueError: two files update the same weight, or have vectors of one trigger for the same text encoder.
    """
    updates: dict[str, Update] = {}
    tokens: dict[str, Token] = {}
    rows: dict[str, torch.Tensor] = {}
    for part in parts:
        if twice := updates.keys() & part.updates.keys():
            raise ValueError(f"two files update {min(twice)}")
        updates |= part.updates
        rows |= part.rows
        for token in part.tokens:
            known = tokens.get(token.trigger, Token(token.trigger, {}))
            if known.vectors.keys() & token.vectors.keys():
                raise ValueError("two files have the same trigger")
            tokens[token.trigger] = Token(token.trigger, {**known.vectors, **token.vectors})
    return Adapter(updates, tuple(tokens.values()), rows, tuple(note for part in parts for note in part.notes))

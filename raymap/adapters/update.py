"""The one form that every adapter takes here, whatever its method or file: updates of named weights, new tokens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch

from raymap.base.parts import is_text


class Held:
    """A frozen dataclass of tensors in float32, of numbers, and of others of its kind."""

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        own = self._values().values()
        return sum(v.size if isinstance(v, Held) else v.numel() if isinstance(v, torch.Tensor) else 0 for v in own)

    @property
    def bound(self) -> float:
        """The product of the norms of its tensors and of its numbers, which no number that follows from it exceeds."""
        found = 1.0
        for value in self._values().values():
            if isinstance(value, torch.Tensor):
                found *= float(torch.linalg.vector_norm(value.double())) if value.is_floating_point() else 1.0
            elif isinstance(value, Held | float):
                found *= value.bound if isinstance(value, Held) else abs(value)
        return found

    def to(self, device: torch.device) -> Self:
        """Return it with all of its tensors on a device."""
        moved = {name: v.to(device) if isinstance(v, torch.Tensor | Held) else v for name, v in self._values().items()}
        return replace(self, **moved)  # type: ignore[type-var]

    def _values(self) -> dict[str, Any]:
        return {own.name: getattr(self, own.name) for own in fields(self)}  # type: ignore[arg-type]


class Update(Held, ABC):
    """What an adapter does to one weight W: it yields ΔW, in the shape of W, from the tensors that its file holds."""

    @property
    def from_base(self) -> bool:
        """Whether ΔW·x has to be computed from the base's own weight."""
        return True

    @abstractmethod
    def delta(self, base: torch.Tensor) -> torch.Tensor:
        """Return ΔW in the base weight's shape, float32."""

    @abstractmethod
    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether the update is one of a weight of this shape."""

    @abstractmethod
    def rows(self, index: torch.Tensor) -> Update:
        """Return the update of those rows (output channels) of the weight, in that order (n,), int64.

        Raises:
            ValueError: each row's ΔW depends on other rows of the weight, so that they cannot be parted.
        """

    def norm(self, base: torch.Tensor) -> float:
        """Return the Frobenius norm of ΔW."""
        return float(torch.linalg.norm(self.delta(base).double()))

    def write(self, base: torch.Tensor, live: torch.Tensor, alpha: float) -> None:
        """Write base + alpha · ΔW into the live weight, in place."""
        live.copy_(base.float() + alpha * self.delta(base))


class Additive(Update):
    """An update whose ΔW is the same whatever the weight is."""

    @property
    def from_base(self) -> bool:
        return False

    @abstractmethod
    def matrix(self) -> torch.Tensor:
        """Return ΔW with all but its first dimension flattened, or a vector's (n,), float32."""

    @property
    @abstractmethod
    def flat(self) -> tuple[int, ...]:
        """The shape of `matrix`."""

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        return self.matrix().view(base.shape)

    @abstractmethod
    def rows(self, index: torch.Tensor) -> Additive: ...

    def fits(self, shape: tuple[int, ...]) -> bool:
        return self.flat == (shape if len(shape) < 2 else (shape[0], math.prod(shape[1:])))


@dataclass(frozen=True)
class LowRank(Additive):
    """ΔW = scale · up @ down, with down (rank, in) and up (out, rank), float32.

    The update of a convolution is flattened: `in` is then input channels × kernel height × kernel width.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @property
    def flat(self) -> tuple[int, ...]:
        return self.up.shape[0], self.down.shape[1]

    def matrix(self) -> torch.Tensor:
        return self.scale * (self.up @ self.down)

    def rows(self, index: torch.Tensor) -> LowRank:
        return LowRank(self.down, self.up[index], self.scale)

    def norm(self, base: torch.Tensor) -> float:
        """Return the Frobenius norm of ΔW, from rank × rank matrices in float64."""
        down, up = self.down.double(), self.up.double()
        squared = torch.trace((up.T @ up) @ (down @ down.T)).clamp(min=0)
        return abs(self.scale) * float(squared.sqrt())

    def write(self, base: torch.Tensor, live: torch.Tensor, alpha: float) -> None:
        """Write base + alpha · ΔW into the live weight, in place."""
        if base.dtype == torch.float32 and base.dim() == 2:
            torch.addmm(base, self.up, self.down, alpha=alpha * self.scale, out=live)
        else:
            flat = base.reshape(base.shape[0], -1).float()
            live.copy_(torch.addmm(flat, self.up, self.down, alpha=alpha * self.scale).view(base.shape))


@dataclass(frozen=True)
class Replacement(Update):
    """A weight that replaces the base's whole: Custom Diffusion's keys and values, or those of a whole checkpoint.

    It may be kept in the format of its file; everything is computed in float32.
    """

    weight: torch.Tensor

    @property
    def from_base(self) -> bool:
        return False

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        return self.weight.float() - base.float()

    def fits(self, shape: tuple[int, ...]) -> bool:
        return tuple(self.weight.shape) == tuple(shape)

    def rows(self, index: torch.Tensor) -> Replacement:
        return Replacement(self.weight[index])

    def write(self, base: torch.Tensor, live: torch.Tensor, alpha: float) -> None:
        """Write base + alpha · (weight − base) into the live weight, in place; exact at alpha 0 and 1."""
        if alpha == 1:
            live.copy_(self.weight)
        else:
            live.copy_(torch.lerp(base.float(), self.weight.float(), alpha))


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
    other rows drift has them. `kind` is the community's name of the updates where their reader reads several kinds
    (`loha`). `notes` are sentences about how its files were read that their user should know.
    """

    updates: Mapping[str, Update]
    tokens: tuple[Token, ...] = ()
    rows: Mapping[str, torch.Tensor] = field(default_factory=dict)
    kind: str | None = None
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
    notes: dict[str, None] = {}
    for part in parts:
        notes |= dict.fromkeys(part.notes)
        if twice := updates.keys() & part.updates.keys():
            raise ValueError(f"two files update {min(twice)}")
        updates |= part.updates
        rows |= part.rows
        for token in part.tokens:
            known = tokens.get(token.trigger, Token(token.trigger, {}))
            if known.vectors.keys() & token.vectors.keys():
                raise ValueError("two files have the same trigger")
            tokens[token.trigger] = Token(token.trigger, {**known.vectors, **token.vectors})
    return Adapter(updates, tuple(tokens.values()), rows, notes=tuple(notes))

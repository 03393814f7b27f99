"""A base as a run knows it, before anything of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from raymap.base.checkpoint import Checkpoint, check_denoiser, digest_with, names_file, outline_for
from raymap.base.complete import check_folder
from raymap.base.families.family import Family
from raymap.base.families.registry import family_at
from raymap.base.flops.count import Flops, count_flops
from raymap.base.folder import OUTLINES, digest, local_file, outline_of, pinned, resolve, tokenizer_at
from raymap.base.memory import Memory, decoding_bytes, denoising_bytes, weight_bytes
from raymap.base.parts import Parts, parts_of
from raymap.base.settings import OwnSettings, own_settings
from raymap.base.shapes import config_of, index_of, shapes_of
from raymap.base.skeleton import Skeleton, read_skeleton
from raymap.errors import InputError
from raymap.study.model import MemorySettings, SamplerSettings

_LEVELS = ("block_out_channels", "encoder_block_out_channels", "dim_mult")
"""Keys of autoencoders' configurations under which each level of resolution has an entry; there is one, the first."""

HEADS = ("num_cross_attention_heads", "num_attention_heads", "n_heads", "attention_head_dim")
"""What configurations of denoisers call the number of heads that attend to a prompt, in the order in which they are
believed: of a UNet, diffusers takes `attention_head_dim` for it."""


@dataclass(frozen=True)
class Base:
    """A base: its name in a study, its folder on this node, its family, and facts that are read from its files.

    `file` is a single file that holds the weights: those of the denoiser, which it replaces, or, beside the packaged
    configurations of an outline, all of them. A fact is read when it is first asked for, and never again.
    """

    name: str
    folder: Path
    family: Family
    file: Checkpoint | None = None

    @classmethod
    def at(cls, folder: Path, name: str | None = None) -> Self:
        """Return the base in a folder.

        Raises:
            InputError: it is of no known family.
        """
        return cls(name or str(folder), folder, family_at(folder, name))

    @property
    def is_outline(self) -> bool:
        """Whether only the configurations of its known architecture are here, and no weights."""
        return self.folder.parent == OUTLINES and self.file is None

    @property
    def pinned(self) -> str:
        """The name by which every node gets the same files: a hub id with the commit that this node has."""
        return pinned(self.name, self.folder)

    @property
    def weights(self) -> str | None:
        """The name of the file that replaces the denoiser's weights; None where there is none."""
        return self.file.name if self.file and self.file.name != self.name else None

    @cached_property
    def sha256(self) -> str:
        """The digest of all files that decide an image."""
        return digest(self.folder) if self.file is None else digest_with(self.folder, self.file)

    @cached_property
    def own(self) -> OwnSettings:
        """What its folder says about drawing."""
        return own_settings(self.folder)

    def sampler(self, asked: SamplerSettings) -> SamplerSettings:
        """Return settings with its own steps and guidance scale, or its family's, where a study left them out."""
        return self.family.sampler(self.own.completed(asked))

    @cached_property
    def parts(self) -> Parts:
        """Its components."""
        return parts_of(index_of(self.folder))

    @cached_property
    def skeleton(self) -> Skeleton:
        """What it offers to adapters. Raises InputError where a weight file cannot be read."""
        folders = {encoder: tokenizer_at(self.folder, name) for encoder, name in self.parts.tokenizers.items()}
        known = {name: at for name, at in folders.items() if at}
        return read_skeleton(self.folder, self.family, known, self.file)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that it draws where a study asks for no size."""
        call = self.own.call
        if "height" in call and "width" in call:
            return call["height"], call["width"]
        if self.family.size:
            return self.family.size
        side = int(config_of(self.folder, self.parts.denoisers[0])["sample_size"]) * self.pixels
        return side, side

    @cached_property
    def pixels(self) -> int:
        """How many image pixels there are to a latent pixel, along a side."""
        config = config_of(self.folder, "vae")
        ratio = config.get("spatial_compression_ratio") or config.get("scale_factor_spatial")
        levels = next((config[key] for key in _LEVELS if key in config), (0,))
        return int(ratio or 2 ** (len(levels) - 1))

    @property
    def text_tokens(self) -> int:
        """How many tokens of a prompt the denoiser reads."""
        appended = self.family.appended_tokens
        if appended is not None:
            own = max(self.skeleton.positions.values(), default=0)
            return own + int(self.own.call.get("max_sequence_length", appended))
        return self.family.text_tokens or self.skeleton.text_length

    def memory(self, size: tuple[int, int], dtype: str, settings: MemorySettings) -> Memory:
        """Return what one image of a height and width in pixels takes on a device, without adapters.

        Args:
            dtype: torch's name of the format in which everything is computed.
        """
        latents = (size[0] // self.pixels, size[1] // self.pixels)
        denoisers, vae = ({p: shapes_of(self.folder, p) for p in parts} for parts in (self.parts.denoisers, ("vae",)))
        first = self.parts.denoisers[0]
        encoders = {part: shapes_of(self.folder, part) for part in self.parts.encoders}
        config = config_of(self.folder, first)
        return Memory(
            denoiser=sum(weight_bytes(shapes, dtype, settings.quantize) for shapes in denoisers.values()),
            encoders=tuple(weight_bytes(shapes, dtype) for shapes in encoders.values()),
            autoencoder=weight_bytes(vae["vae"], dtype),
            denoising=denoising_bytes(self.family, denoisers[first], config, latents, self.text_tokens, dtype),
            decoding=decoding_bytes(
                vae["vae"], config_of(self.folder, "vae"), size, latents, dtype, settings.decode == "tiled"
            ),
            adapters=0,
        )

    def flops(self, size: tuple[int, int] | None = None) -> Flops:
        """Return the FLOPs of one image of a height and width in pixels; by default as it draws without being asked."""
        part = self.parts.denoisers[0]
        denoiser, autoencoder = shapes_of(self.folder, part), shapes_of(self.folder, "vae")
        height, width = (side // self.pixels for side in size or self.size)
        config = config_of(self.folder, part)
        return count_flops(self.family, denoiser, autoencoder, (height, width), self.text_tokens, config)

    @cached_property
    def heads(self) -> int:
        """The number of attention heads in the denoiser's layer with the fewest; 1 where nothing says."""
        config = config_of(self.folder, self.parts.denoisers[0])
        heads = next((config[key] for key in HEADS if config.get(key)), 1)
        return min(heads) if isinstance(heads, list) else int(heads)


def open_base(name: str, weights: str | None = None, outline: bool = False) -> Base:
    """Return a base by the name that a study gives it; a URL or a hub id is fetched first.

    Args:
        weights: the path or URL of a single file whose denoiser takes the place of the base's.
        outline: the outline of a known architecture may stand in for a hub id that was not fetched yet.

    Raises:
        InputError: as `resolve`, or it is of no known family; as `check_folder`, `outline_for` and `check_denoiser`.
    """
    if names_file(name):
        if weights:
            raise InputError(
                f"weights: {weights}", "stands beside a base that is a single file", "give only one of them"
            )
        file = Checkpoint(name, local_file(name))
        return replace(Base.at(outline_for(file), name), file=file)
    base = Base.at((outline_of(name) if outline else None) or resolve(name), name)
    if not base.is_outline:
        check_folder(base.folder, base.family)
    if weights is None:
        return base
    file = Checkpoint(weights, local_file(weights))
    check_denoiser(file, base.folder, base.family)
    return replace(base, file=file)

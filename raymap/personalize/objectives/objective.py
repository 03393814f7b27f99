"""What a training minimizes: how latents are noised, what the denoiser is given, and what it should have answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pkgutil import resolve_name

import torch
from diffusers import DiffusionPipeline

from raymap.base.families.registry import family_of
from raymap.drawing.prompts import Encoding


class Objective(ABC):
    """The training objective of one family; a `Family` names the subclass as `module:Class`.

    Attributes:
        opening: how many tokens at the beginning of the text that the denoiser attends to say nothing of a prompt.
    """

    opening: int = 1

    @abstractmethod
    def __init__(self, pipeline: DiffusionPipeline) -> None:
        """Take what is needed from a pipeline: its denoiser, and the noise schedule that its scheduler names.

        Raises:
            InputError: the pipeline's scheduler asks for another kind of prediction.
        """

    @abstractmethod
    def times(self, count: int, random: torch.Generator) -> torch.Tensor:
        """Draw the numbers (count,) of noise levels, on the CPU."""

    @abstractmethod
    def predict(
        self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, texts: Encoding
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is compared at noise levels: the denoiser's prediction, and its target.

        Args:
            clean: latents (n, channels, h, w).
            noise: as many, from a standard normal distribution.
            times: noise levels (n,), as `times` draws them.
            texts: what the pipeline's `encode_prompt` returns for n captions without guidance.

        Returns:
            Both (n, channels, h, w); their mean squared difference is the loss.
        """


def objective_of(pipeline: DiffusionPipeline) -> Objective:
    """Return the training objective of a loaded pipeline.

    Raises:
        TypeError: its family has none.
        InputError: as the objective's constructor.
    """
    family = family_of(pipeline)
    if family.objective is None:
        raise TypeError(f"{family.title} has no training objective")
    objective: Objective = resolve_name(family.objective)(pipeline)
    return objective

"""Which of torch's implementations of attention (`torch.nn.attention.SDPBackend`) a setup draws with."""

from __future__ import annotations

import contextlib
import warnings
from contextlib import AbstractContextManager

import torch
from diffusers import StableDiffusionPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def attending(attention: str) -> AbstractContextManager[object]:
    """Return a context in which attention is computed by a backend; `auto` leaves torch its choice.

    Where a backend cannot do it, `math` does: no fused one takes the masks of a text encoder, nor the single wide head
    of a decoder. That the denoiser's attention is what was asked for, `check_attention` sees to.
    """
    if attention == "auto":
        return contextlib.nullcontext()
    return sdpa_kernel([BACKENDS[attention], SDPBackend.MATH], set_priority=True)


@torch.no_grad()
def check_attention(pipeline: StableDiffusionPipeline, attention: str) -> None:
    """Check that a backend can do all of the denoiser's attention: two items pass through it with no other allowed.

    Raises:
        RuntimeError: it cannot, on this device and in this dtype; torch's reasons are in the message.
    """
    if attention == "auto":
        return
    unet = pipeline.unet
    of = {"device": unet.device, "dtype": unet.dtype}
    side, channels, width = unet.config.sample_size, unet.config.in_channels, unet.config.cross_attention_dim
    latents = torch.zeros(2, channels, side, side, **of)
    text = torch.zeros(2, pipeline.tokenizer.model_max_length, width, **of)
    with warnings.catch_warnings(record=True) as said, sdpa_kernel(BACKENDS[attention]):
        warnings.simplefilter("always")
        try:
            unet(latents, 1, encoder_hidden_states=text)
        except RuntimeError as error:
            reasons = [str(warning.message).partition(" (Triggered")[0] for warning in said]
            where = f"{of['device'].type} in {str(of['dtype']).removeprefix('torch.')}"
            raise RuntimeError(
                f"attention: {attention} cannot run here ({where}): {error} {' '.join(reasons)}"
            ) from None

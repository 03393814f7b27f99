"""Names and shapes of a base's weights, from the headers of its files: no weight is read, torch is not loaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from raymap.errors import InputError

Shapes = dict[str, tuple[int, ...]]
FILES = {
    "unet": "diffusion_pytorch_model*.safetensors",
    "vae": "diffusion_pytorch_model*.safetensors",
    "text_encoder": "model*.safetensors",
}
"""The files of a component, as diffusers and transformers name them: one, several shards, variants of one shape."""
LEVEL = "text_model."
"""A level that the text encoder of a file from the hub has, and that of the installed transformers has not."""


@cache
def shapes_of(folder: Path, component: str) -> Shapes:
    """Return the shapes of a component's parameters, by the names that the loaded component has.

    Where a base has no safetensors files, its component is built without storage, as its configuration says.

    Args:
        folder: a base's, with a folder for each component.
        component: `unet`, `vae` or `text_encoder`.

    Raises:
        InputError: a file whose header cannot be read.
    """
    files = sorted((folder / component).glob(FILES[component]))
    if not files:
        return built(folder, component)
    held: Shapes = {}
    for path in files:
        held |= _header(path)
    return {name.removeprefix(LEVEL): shape for name, shape in held.items() if not name.endswith(".position_ids")}


def _header(path: Path) -> Shapes:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(str(path), f"is no readable safetensors file ({error})", "fetch the base again") from error


def built(folder: Path, component: str) -> Shapes:
    """Return the shapes of a component that is built on torch's meta device from its configuration."""
    # Imported here: a base that has safetensors files is looked at without torch.
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        if component == "text_encoder":
            module = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / component))
        else:
            kind = UNet2DConditionModel if component == "unet" else AutoencoderKL
            module = kind.from_config(kind.load_config(folder / component))
    return shapes_in(module)


def shapes_in(module: Any) -> Shapes:
    """Return the shapes of a loaded component's parameters."""
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}

"""The personalization methods: a pipeline and an order go in, an adapter's files come out; the base stays as it was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.adapters.inversion import INVERSION_FILE, ROWS_FILE, ROWS_KEY
from raymap.adapters.lora import LORA_FILE, METADATA
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.personalize.tokens import LearnedTokens
from raymap.personalize.training import Step, fit
from raymap.personalize.views import Views, encode, flipped, rescaled
from raymap.recipes import CustomDiffusionRecipe, InversionRecipe, LoraRecipe, Recipe
from raymap.study import SamplerSettings

PEFT_NAME = "default"
CLASS_BATCH = 8


def train_lora(
    pipeline: StableDiffusionPipeline,
    images: np.ndarray | None,
    caption: str,
    class_prompt: str,
    recipe: LoraRecipe,
    folder: Path,
) -> Iterator[Step]:
    """Train DreamBooth-LoRA and write `pytorch_lora_weights.safetensors`, alpha in its metadata.

    Follows diffusers' `train_dreambooth_lora.py` (UNet only): A gaussian, B zero, so that it sets out from the base.

    Args:
        images: references, uint8 (N, H, W, 3) of the base's size; None writes the null adapter, B = 0.
        caption: of every reference, trigger included.
        class_prompt: of the pictures that the base draws for prior preservation, where the recipe asks for it.
    """
    unet = pipeline.unet
    prior = None if images is None else _prior(pipeline, class_prompt, recipe)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha or recipe.rank,
            init_lora_weights="gaussian",
            target_modules=list(recipe.targets),
        )
        unet.add_adapter(config, adapter_name=PEFT_NAME)
    try:
        if images is not None:
            views = encode(pipeline, images, ((caption,),) * len(images))
            weights = [p for p in unet.parameters() if p.requires_grad]
            yield from fit(pipeline, weights, PromptEncoder(pipeline), views, prior, recipe)
        collated = _collate_lora_metadata({"unet": unet})["unet_lora_adapter_metadata"]
        # Equal weights give equal files: peft's set of targets is sorted, and a single metadata entry has one order
        # (several, as diffusers' own writer leaves them, are shuffled anew in every process).
        held = {f"unet.{k}": sorted(v) if isinstance(v, set | list) else v for k, v in collated.items()}
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        _write(
            {f"unet.{name}": weight for name, weight in layers.items()},
            folder / LORA_FILE,
            {METADATA: json.dumps(held, indent=2, sort_keys=True)},
        )
    finally:
        unet.unload_lora()


def train_inversion(
    pipeline: StableDiffusionPipeline,
    images: np.ndarray | None,
    trigger: str,
    initializer: str,
    templates: tuple[str, ...],
    recipe: InversionRecipe,
    folder: Path,
) -> Iterator[Step]:
    """Train Textual Inversion and write `learned_embeds.safetensors`.

    Follows diffusers' `textual_inversion.py`: only the trigger's rows move. With `restore_rows` false the whole token
    embedding is written too, shrunk as AdamW's weight decay would have shrunk rows without a gradient: by
    (1 − learning rate · weight decay) at every step.

    Args:
        images: references, uint8 (N, H, W, 3); None writes the null adapter, random rows for the trigger.
        templates: captions with one `{}` for the trigger.
    """
    tokens = LearnedTokens(pipeline, trigger, recipe.vectors, initializer)
    if images is None:
        _randomize(tokens, recipe)
    else:
        pictures = flipped(images) if recipe.flip else images
        captions = tuple(template.replace("{}", trigger) for template in templates)
        views = encode(pipeline, pictures, (captions,) * len(pictures))
        yield from fit(pipeline, [tokens.vectors], tokens.encode, views, None, recipe)
    _write({trigger: tokens.token.vectors}, folder / INVERSION_FILE)
    if images is not None and not recipe.restore_rows:
        rows = pipeline.text_encoder.get_input_embeddings().weight[: len(pipeline.tokenizer)].detach().cpu().clone()
        for _ in range(recipe.steps):
            rows.mul_(1 - recipe.learning_rate * recipe.weight_decay)
        _write({ROWS_KEY: rows}, folder / ROWS_FILE)


def train_custom_diffusion(
    pipeline: StableDiffusionPipeline,
    images: np.ndarray | None,
    caption: str,
    class_prompt: str,
    recipe: CustomDiffusionRecipe,
    folder: Path,
) -> Iterator[Step]:
    """Train Custom Diffusion and write `pytorch_custom_diffusion_weights.safetensors` and `<trigger>.safetensors`.

    Follows diffusers' `train_custom_diffusion.py`: keys and values of cross-attention and the modifier token's row are
    trained, the first token's keys and values pass no gradient on.

    Args:
        images: references, uint8 (N, H, W, 3); None writes the null adapter: copies, and a random row.
        caption: of the references, trigger included.
    """
    tokens = LearnedTokens(pipeline, recipe.trigger, 1, recipe.initializer)
    prior = None if images is None else _prior(pipeline, class_prompt, recipe)
    with _keys_and_values(pipeline) as weights:
        if images is None:
            _randomize(tokens, recipe)
        else:
            if recipe.augment:
                views = encode(pipeline, *rescaled(images, caption, recipe.seed, pipeline.vae_scale_factor))
            else:
                views = encode(pipeline, images, ((caption,),) * len(images))
            trained = [*weights.values(), tokens.vectors]
            yield from fit(pipeline, trained, tokens.encode, views, prior, recipe)
        _write({key_of(name): weight.detach() for name, weight in weights.items()}, folder / CUSTOM_DIFFUSION_FILE)
    _write({recipe.trigger: tokens.token.vectors[0]}, folder / f"{recipe.trigger}.safetensors")


@contextlib.contextmanager
def _keys_and_values(pipeline: StableDiffusionPipeline) -> Iterator[dict[str, torch.nn.Parameter]]:
    """Make cross-attention's keys and values trainable, and put the base's back in the end."""
    ends = ("attn2.to_k", "attn2.to_v")
    modules = {name: module for name, module in pipeline.unet.named_modules() if name.endswith(ends)}
    weights = {f"{name}.weight": module.weight for name, module in modules.items()}
    pristine = {name: weight.detach().clone() for name, weight in weights.items()}
    hooks = [module.register_forward_hook(_detach_first) for module in modules.values()]
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()
        for name, weight in weights.items():
            weight.requires_grad_(False)
            weight.grad = None
            weight.copy_(pristine[name])


def _detach_first(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
    return torch.cat([output[:, :1].detach(), output[:, 1:]], 1)


def _prior(pipeline: StableDiffusionPipeline, class_prompt: str, recipe: Recipe) -> Views | None:
    """Return pictures of the class, drawn by the base itself from seeds 0, 1, …, where the recipe wants a prior."""
    if not recipe.prior_weight:
        return None
    encoder, pixels = PromptEncoder(pipeline), []
    for start in range(0, recipe.class_images, CLASS_BATCH):
        seeds = tuple(range(start, min(start + CLASS_BATCH, recipe.class_images)))
        pixels.append(draw(pipeline, encoder, [class_prompt] * len(seeds), seeds, SamplerSettings(), CLASS_BATCH))
    return encode(pipeline, np.concatenate(pixels), ((class_prompt,),) * recipe.class_images)


@torch.no_grad()
def _randomize(tokens: LearnedTokens, recipe: Recipe) -> None:
    random = torch.Generator("cpu").manual_seed(recipe.seed)
    noise = torch.randn(tokens.vectors.shape, generator=random)
    tokens.vectors.copy_(noise * tokens.vectors.std().cpu())


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata=metadata)

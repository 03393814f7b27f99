"""The command that trains the embedded base: all of its parts in order, or those that are named."""

from __future__ import annotations

import argparse
import functools
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console

from raymap.embedded.train import clip, data, lpips_backbone, mmdit, unet, vae

IMAGES = 40_000
STEPS = {"vae": 3_000, "unet": 5_400, "decoder": 3_000, "mmdit": 5_400, "lpips": 700, "clip": 2_400}
PARTS = tuple(STEPS)


def main() -> None:
    """Train the named parts of the embedded base and write their weights into the output folder."""
    parser = argparse.ArgumentParser(prog="python -m raymap.embedded.train", description=main.__doc__)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "weights")
    parser.add_argument(
        "--work", type=Path, default=Path("build/embedded"), help="folder of rendered images and checkpoints"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of training steps")
    parser.add_argument("--device", type=torch.device, default="cpu", help="where models are trained: cpu or cuda")
    args = parser.parse_args()
    parts = PARTS if "all" in args.parts else [p for p in PARTS if p in args.parts]
    images = functools.cache(lambda: data.load(args.work, "train", IMAGES))
    for part in parts:
        start = time.perf_counter()
        steps = round(STEPS[part] * args.scale)
        pipeline = args.output / "pipeline"
        if part == "vae":
            vae.train(images(), steps, pipeline / "vae")
        elif part == "decoder":
            vae.train_decoder(images(), steps, pipeline / "vae")
        elif part == "clip":
            bases = [folder for folder in (pipeline, args.output / "pipeline-dit") if folder.exists()]
            clip.train(steps, bases, args.output / "clip", args.device, args.scale)
        elif part == "lpips":
            lpips_backbone.train(images(), steps, args.output / "lpips", args.device)
        else:
            denoiser, folder = (unet, pipeline) if part == "unet" else (mmdit, args.output / "pipeline-dit")
            encoded = latents(pipeline / "vae", args.work, images().pixels, args.device)
            denoiser.train(encoded, images().captions, steps, folder, args.work / f"{part}.pt", args.device)
        Console().print(
            f"{part}: {steps} steps in {time.perf_counter() - start:.0f} s on {torch.get_num_threads()} threads"
        )


def latents(autoencoder: Path, work: Path, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return the scaled latents, float32 (N, 4, 16, 16), of images uint8 (N, 64, 64, 3).

    They are computed once and kept in the work folder, under a digest of the encoder's weights.
    """
    model = AutoencoderKL.from_pretrained(autoencoder, torch_dtype=torch.float32)
    weights = b"".join(w.numpy().tobytes() for w in model.encoder.state_dict().values())
    path = work / f"latents-{len(pixels)}-{hashlib.sha256(weights).hexdigest()[:16]}.pt"
    if not path.exists():
        torch.save(vae.encode(model, pixels, device), path)
    encoded: torch.Tensor = torch.load(path, weights_only=True)
    return encoded


if __name__ == "__main__":
    main()

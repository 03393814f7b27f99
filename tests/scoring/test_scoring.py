"""Scores equal what open_clip and lpips give when called directly."""

from __future__ import annotations

import lpips
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from raymap.embedded.model import CLIP, LPIPS
from raymap.embedded.train.data import motifs
from raymap.scoring.clip import ClipScorer, architecture_of
from raymap.scoring.perceptual import LpipsScorer

HELD_OUT = motifs(None, 40, seed=5, held_out=True)


@pytest.fixture(scope="module")
def renders() -> np.ndarray:
    rng = np.random.default_rng(11)
    return np.stack([p.render(rng) for p in HELD_OUT])


def test_clip_cosines_equal_open_clip_called_directly(renders: np.ndarray) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{CLIP}")
    model.eval()
    captions = [p.caption for p in HELD_OUT[:6]]
    with torch.no_grad():
        text = model.encode_text(open_clip.get_tokenizer(f"local-dir:{CLIP}")(captions))
        image = model.encode_image(torch.stack([preprocess(Image.fromarray(x)) for x in renders[:6]]))
    expected = torch.nn.functional.cosine_similarity(text, image).numpy()
    scorer = ClipScorer("embedded")
    ours = scorer.cosines(captions, scorer.image_features(renders[:6]))
    assert ours.dtype == np.float32
    assert np.allclose(ours, expected, atol=1e-6)


def test_pretrained_weights_get_the_activation_that_they_were_trained_with() -> None:
    """By open_clip's own configurations of weights and architectures."""
    quick = 0
    for model, tag in open_clip.list_pretrained():
        trained = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
        architecture, same = architecture_of(f"{model}/{tag}")
        assert same == tag
        if trained or architecture.removesuffix("-quickgelu") != architecture:
            assert open_clip.get_model_config(architecture)["quick_gelu"] == trained, (model, tag)
            quick += model != architecture
    assert quick > 10  # openai's, and those of MetaCLIP and DFN


def test_the_embedded_clip_knows_held_out_captions(renders: np.ndarray) -> None:
    scorer = ClipScorer("embedded")
    cosines = scorer.image_features(renders) @ scorer.text_features([p.caption for p in HELD_OUT]).T
    assert (cosines.argmax(1) == torch.arange(len(renders))).float().mean() > 0.8


def test_clip_scores_may_be_negative(renders: np.ndarray) -> None:
    scorer = ClipScorer("embedded")
    cosines = scorer.image_features(renders) @ scorer.text_features([p.caption for p in HELD_OUT]).T
    assert cosines.min() < 0
    assert cosines.abs().max() <= 1 + 1e-6


def test_lpips_equals_the_lpips_package_called_directly(renders: np.ndarray) -> None:
    from safetensors.torch import load_file

    metric = lpips.LPIPS(net="squeeze", pretrained=False, pnet_rand=True, verbose=False).eval()
    metric.load_state_dict({k: v.float() for k, v in load_file(LPIPS).items()}, strict=False)
    a, b = (torch.tensor(x).permute(0, 3, 1, 2) / 255 for x in (renders[:5], renders[5:10]))
    with torch.no_grad():
        expected = metric(a, b, normalize=True).flatten().numpy()
    assert np.allclose(LpipsScorer("embedded").distances(renders[:5], renders[5:10]), expected, atol=1e-5)


def test_lpips_of_equal_images_is_zero_and_order_does_not_matter(renders: np.ndarray) -> None:
    scorer = LpipsScorer("embedded")
    assert np.all(scorer.distances(renders, renders) == 0)
    forth, back = scorer.distances(renders[:5], renders[5:10]), scorer.distances(renders[5:10], renders[:5])
    assert np.allclose(forth, back, atol=1e-6)
    assert np.all(forth > 0)


@pytest.mark.parametrize(
    "shapes", [((1, 64, 64, 3), (2, 64, 64, 3)), ((2, 64, 64, 1), (2, 64, 64, 1)), ((64, 64, 3), (64, 64, 3))]
)
def test_lpips_refuses_shapes_that_would_broadcast(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (np.zeros(s, np.uint8) for s in shapes)
    with pytest.raises(ValueError, match="expected two uint8"):
        LpipsScorer("embedded").distances(a, b)


def test_lpips_refuses_floats() -> None:
    x = np.zeros((1, 64, 64, 3), np.float32)
    with pytest.raises(ValueError, match="float32"):
        LpipsScorer("embedded").distances(x, x)

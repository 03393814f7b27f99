"""What the header of an adapter file says of itself: what it was trained for, how, and on which captions.

kohya's trainers write keys that begin with `ss_`, most of the others those of the modelspec standard.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

TITLE = ("modelspec.title", "name", "ss_output_name")
LICENCE = ("modelspec.license", "license", "licence")
CONSENT = ("modelspec.consent", "consent")
BASE = ("modelspec.architecture", "ss_base_model_version", "base_model", "ss_sd_model_name", "ss_base_model_name")
TRIGGER = ("modelspec.trigger_phrase", "trigger_phrase", "ss_trigger_words", "trigger_word")
SETTINGS = {
    "trainer": ("software", "ss_network_module", "modelspec.implementation"),
    "settings of the network": ("ss_network_args",),
    "steps": ("ss_steps", "ss_max_train_steps"),
    "epochs": ("ss_epoch", "ss_num_epochs"),
    "images": ("ss_num_train_images",),
    "batch size": ("ss_total_batch_size", "ss_batch_size_per_device"),
    "resolution": ("ss_resolution", "modelspec.resolution"),
    "learning rate": ("ss_unet_lr", "ss_learning_rate"),
    "optimizer": ("ss_optimizer",),
    "precision": ("ss_mixed_precision",),
    "clip skip": ("ss_clip_skip",),
    "seed": ("ss_seed",),
    "prediction": ("modelspec.prediction_type",),
}
"""What `settings` returns, each with the keys that may hold it, the first one before the others."""
_REPEATS = re.compile(r"^\d+_")


def first(metadata: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """Return what a header holds under the first of these keys that it has; empty if it has none."""
    return next((metadata[key] for key in keys if metadata.get(key) not in (None, "", "None")), "")


def settings(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return how an adapter was trained, as far as its header says it."""
    found = {name: first(metadata, keys) for name, keys in SETTINGS.items()}
    step = _object(metadata.get("training_info", "")).get("step")  # as ai-toolkit writes it
    found["steps"] = found["steps"] or str(step or "")
    found["trainer"] = str(_object(found["trainer"]).get("name", found["trainer"]))
    return {name: value for name, value in found.items() if value}


def tags(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return the tags of the captions that an adapter was trained on with their numbers, the commonest first."""
    counts: Counter[str] = Counter()
    for folder in _object(metadata.get("ss_tag_frequency", "")).values():
        for tag, count in folder.items() if isinstance(folder, dict) else ():
            if isinstance(count, int) and str(tag).strip():
                counts[str(tag).strip()] += count
    return counts.most_common()


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words that the header names as triggers, or those that kohya's folders of images are named by."""
    told = first(metadata, TRIGGER)
    if told:
        return (told,)
    folders = _object(metadata.get("ss_dataset_dirs", "")) or _object(metadata.get("ss_tag_frequency", ""))
    named = [_REPEATS.sub("", str(folder)) for folder in folders if _REPEATS.match(str(folder))]
    return tuple(dict.fromkeys(name for name in named if name))


def _object(text: str) -> dict[Any, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

"""The Arrow schemas of a run folder: the contract between drawing and analysis."""

from __future__ import annotations

import pyarrow as pa

VERSION = "1"


# Meanings are part of the files' bytes, so that rewording one changes the digest of every new file.
def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


_ADAPTER = [
    _field("adapter", pa.string(), "name of the adapter"),
    _field("method", pa.string(), "lora | textual_inversion | custom_diffusion | identity"),
    _field("subject", pa.string(), "name of the subject"),
    _field("subject_category", pa.string(), "face | object | style | control | unknown"),
]

SCORES = pa.schema(
    [
        *_ADAPTER,
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("prompt_category", pa.string(), "people | animals | objects | scenes | styles | abstract"),
        _field("seed", pa.int64(), "seed of the initial noise"),
        _field("clip_base", pa.float32(), "cosine of prompt and base image, -1 to 1"),
        _field("clip_adapted", pa.float32(), "cosine of prompt and adapted image, -1 to 1"),
        _field("lpips", pa.float32(), "LPIPS of base and adapted image, from 0"),
        _field("base_sha256", pa.string(), "SHA-256 of the base image's uint8 pixels"),
        _field("adapted_sha256", pa.string(), "SHA-256 of the adapted image's uint8 pixels"),
        _field("drawn", pa.bool_(), "false: identical to the base image by proof, not drawn"),
        _field("device", pa.string(), "type of device that drew the pair"),
    ]
)

FEATURES = pa.schema(
    [
        _field("adapter", pa.string(), "name of the adapter, or base"),
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("prompt_category", pa.string(), "category of the prompt"),
        _field("seed", pa.int64(), "seed of the initial noise"),
        _field("feature", pa.list_(pa.float32()), "unit vector of the study's CLIP image tower"),
    ]
)

NOISE = pa.schema(
    [
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("prompt_category", pa.string(), "category of the prompt"),
        _field("seed_a", pa.int64(), "seed of the one base image"),
        _field("seed_b", pa.int64(), "seed of the other base image"),
        _field("e_sem", pa.float32(), "absolute difference of their CLIP cosines"),
        _field("e_per", pa.float32(), "LPIPS between them"),
    ]
)

JUDGED = pa.schema(
    [
        _field("adapter", pa.string(), "name of the adapter, or base: then two seeds of the base were compared"),
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("seed", pa.int64(), "seed of the initial noise"),
        _field("seed_b", pa.int64(), "seed of the other base image; null where an adapter was judged", nullable=True),
        _field("judge", pa.string(), "name of the judge"),
        _field("value_base", pa.float32(), "prompt judges: score of the image (of the base)", nullable=True),
        _field(
            "value_adapted",
            pa.float32(),
            "prompt judges: score of the adapted image, or of the base image of seed_b",
            nullable=True,
        ),
        _field("value", pa.float32(), "pair judges: distance between the two images", nullable=True),
    ]
)
"""Rows of the judges beside CLIP and LPIPS: one per adapter, prompt, seed and judge, and one per pair of base seeds."""

DECLARED = b"raymap.judges"
"""Key in the metadata of JUDGED and JUDGED_MAP: what each judge declares (raymap.scoring.judges.JudgeInfo), as JSON."""

MAP = pa.schema(
    [
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("prompt", pa.string(), "text of the prompt"),
        _field("prompt_category", pa.string(), "category of the prompt"),
        *_ADAPTER,
        _field("target", pa.bool_(), "whether the prompt is of the subject's own category"),
        _field(
            "e_sem",
            pa.float64(),
            "mean over seeds of |clip_adapted - clip_base|; null where n_seeds is 0",
            nullable=True,
        ),
        _field(
            "e_sem_signed",
            pa.float64(),
            "mean over seeds of clip_adapted - clip_base; null where n_seeds is 0",
            nullable=True,
        ),
        _field("e_per", pa.float64(), "mean over seeds of LPIPS; null where n_seeds is 0", nullable=True),
        _field("n_seeds", pa.int64(), "number of seeds averaged; fewer than the study's where a batch failed"),
        _field("above_tau_sem", pa.bool_(), "e_sem above the noise floor's 95th percentile", nullable=True),
        _field("above_tau_per", pa.bool_(), "e_per above the noise floor's 95th percentile", nullable=True),
    ]
)

JUDGED_MAP = pa.schema(
    [
        *(MAP.field(name) for name in ("prompt_id", "prompt", "prompt_category")),
        *_ADAPTER,
        MAP.field("target"),
        _field("judge", pa.string(), "name of the judge"),
        _field(
            "shift",
            pa.float64(),
            "mean over seeds of the distance (pair judges) or of |value_adapted - value_base| (prompt judges); null "
            "where n_seeds is 0",
            nullable=True,
        ),
        _field(
            "shift_signed",
            pa.float64(),
            "prompt judges: mean over seeds of value_adapted - value_base; null where n_seeds is 0",
            nullable=True,
        ),
        _field("n_seeds", pa.int64(), "number of seeds averaged; fewer than the study's where a batch failed"),
        _field("above_tau", pa.bool_(), "shift above the noise floor's 95th percentile", nullable=True),
        _field("matched_tau", pa.float64(), "95 % limit of a mean of n_seeds seed pairs of the prompt", nullable=True),
        _field("above_matched", pa.bool_(), "shift above that limit", nullable=True),
    ]
)

INTERVENTIONS = pa.schema(
    [
        _field("intervened", pa.string(), "name of the adapter of which one thing was changed"),
        _field("family", pa.string(), "dose | projection | attention | stage | layer | timesteps | norm | ..."),
        _field("level", pa.string(), "which dose, which part, ...; of norm the norm, of random the seed"),
        _field("alpha", pa.float64(), "factor of the update, 1 as trained"),
        *MAP,
    ]
)

_NAME = pa.dictionary(pa.int16(), pa.string())

ATTENTION = pa.schema(
    [
        *(field.with_type(_NAME) for field in _ADAPTER),
        _field("prompt_id", _NAME, "id of the prompt in the suite"),
        _field("prompt_category", _NAME, "category of the prompt"),
        _field("seed", pa.int64(), "seed of the initial noise"),
        _field("protocol", _NAME, "free: each model on its own trajectory; forced: adapted on the base's latents"),
        _field("layer", _NAME, "cross-attention module of the denoiser"),
        _field("bin", pa.int8(), "group of denoising steps, from noise to picture"),
        _field("timestep", pa.float32(), "mean of the scheduler's timesteps in the bin"),
        _field("heads", pa.int8(), "group of the layer's heads"),
        _field("tokens", _NAME, "class of tokens: content | bos | end | padding"),
        _field("n_tokens", pa.int16(), "tokens of the class in this prompt"),
        _field("delta", pa.float32(), "mean |A_adapted - A_base| over positions, heads, steps and the class's tokens"),
        _field("attention", pa.float32(), "mean A_base over the same; null where not drawn", nullable=True),
        _field("js", pa.float32(), "the class's share of the Jensen-Shannon divergence of a position, in bits"),
        _field("drawn", pa.bool_(), "false: identical to the base by proof, not computed"),
    ]
)

ATTENTION_TOKENS = pa.schema(
    [
        _field("adapter", pa.string(), "name of the adapter"),
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("seed", pa.int64(), "seed of the initial noise"),
        _field("position", pa.int16(), "position of the token, 1 follows the begin token"),
        _field("token", pa.string(), "the tokenizer's piece; </w> ends a word"),
        _field("base", pa.list_(pa.float32()), "mean A over layers, heads and steps, row by row of a 16 x 16 picture"),
        _field("adapted", pa.list_(pa.float32()), "the same under the adapter, free-running where that was asked for"),
    ]
)

ATTENTION_CELLS = pa.schema(
    [
        *(MAP.field(name) for name in ("prompt_id", "prompt", "prompt_category")),
        *_ADAPTER,
        MAP.field("target"),
        _field("protocol", pa.string(), "free | forced"),
        _field("tokens", pa.string(), "all | content | bos | end | padding"),
        _field(
            "delta", pa.float64(), "mean |A_adapted - A_base|, layers, steps, heads, positions, tokens and seeds alike"
        ),
        _field("relative", pa.float64(), "delta over the mean of A_base; null where nothing was drawn", nullable=True),
        _field("js", pa.float64(), "Jensen-Shannon divergence of a position, in bits (of a class: its share)"),
        *(MAP.field(name) for name in ("e_sem", "e_per")),
    ]
)

_TESTS = (
    ("sem", "that E_sem exceeds what re-seeding the base gives"),
    ("per", "that LPIPS exceeds that between seeds of the base"),
    ("signed", "that the mean cosine changed"),
)

_MATCHED = (("sem", "E_sem"), ("per", "E_per"))

SHIFTS = pa.schema(
    [
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("adapter", pa.string(), "name of the adapter"),
        *(_field(f"p_{n}", pa.float64(), f"p-value {what}", nullable=True) for n, what in _TESTS),
        *(_field(f"q_{n}", pa.float64(), f"false-discovery rate {what}", nullable=True) for n, what in _TESTS),
        *(
            _field(
                f"matched_tau_{n}", pa.float64(), f"95 % limit of a mean of n_seeds seed pairs, {what}", nullable=True
            )
            for n, what in _MATCHED
        ),
        *(_field(f"above_matched_{n}", pa.bool_(), f"{what} above that limit", nullable=True) for n, what in _MATCHED),
    ]
)

_CHANGES = (
    ("p_changed", "p-value that the mean cosine changed, by a moderated t"),
    ("p_score", "p-value that it moved beyond the margin"),
    ("p_score_within", "p-value that it is within the margin"),
    ("p_not_fallen", "p-value that it did not fall beyond the margin"),
    ("p_image", "p-value that LPIPS is beyond image_margin"),
    ("p_image_within", "p-value that LPIPS is within image_margin"),
    ("p_shifted", "twice the smaller of p_score and p_image, up to 1"),
    ("p_unchanged", "the larger of p_score_within and p_image_within"),
    ("q_changed", "false-discovery rate of p_changed"),
    ("q_shifted", "false-discovery rate of p_shifted"),
    ("q_unchanged", "false-discovery rate of p_unchanged"),
)

CHANGES = pa.schema(
    [
        _field("prompt_id", pa.string(), "id of the prompt in the suite"),
        _field("adapter", pa.string(), "name of the adapter"),
        _field("target", pa.bool_(), "whether the prompt is of the subject's own category"),
        _field("drawn", pa.bool_(), "false: identical to the base image by proof in every seed, not drawn"),
        _field("seeds", pa.int64(), "number of seeds that were scored"),
        _field("signed", pa.float64(), "mean over seeds of clip_adapted - clip_base"),
        _field("signed_sd", pa.float64(), "moderated standard deviation of one seed's difference", nullable=True),
        _field("signed_df", pa.float64(), "its degrees of freedom, which may be infinite", nullable=True),
        _field("margin", pa.float64(), "moderated standard deviation of the base's cosines over seeds", nullable=True),
        _field("lpips", pa.float64(), "mean over seeds of LPIPS"),
        _field("lpips_sd", pa.float64(), "moderated standard deviation of one seed's LPIPS", nullable=True),
        _field("lpips_df", pa.float64(), "its degrees of freedom, which may be infinite", nullable=True),
        _field("image_margin", pa.float64(), "mean LPIPS of the base's seed pairs plus two moderated deviations",
               nullable=True),
        _field("systematic", pa.float64(), "mean over pairs of different seeds of the product of their differences",
               nullable=True),
        _field("energy", pa.float64(), "energy distance of the cosines over pairs of different seeds", nullable=True),
        *(_field(name, pa.float64(), meaning, nullable=True) for name, meaning in _CHANGES),
        _field("seeds_to_settle", pa.int64(), "seeds that would settle a prompt that is open; null above 40",
               nullable=True),
    ]
)  # fmt: skip
"""Each cell's change against the prompt's own margin (raymap.analysis.changes)."""


def stamped(schema: pa.Schema, digest: str) -> pa.Schema:
    """Return the schema with the run's digest and the version of this contract in its metadata."""
    return schema.with_metadata({"raymap.digest": digest, "raymap.schema": VERSION})

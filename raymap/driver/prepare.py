"""Checks everything that a study names before anything starts: base, judges, references, existing adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from raymap.adapters.brought import Found, find
from raymap.adapters.card import CARD
from raymap.adapters.fetched import local_adapter
from raymap.adapters.triggers import may_stand_in
from raymap.base.fetch import offline
from raymap.base.model import Base, open_base
from raymap.base.quantize import check_quantize
from raymap.driver.auto import chosen
from raymap.driver.memory import Resident, image_size
from raymap.errors import InputError
from raymap.personalize.orders import AdapterOrder, orders
from raymap.personalize.references.read import check_references
from raymap.scoring.names import check_judges
from raymap.study.adapter import check_names
from raymap.study.interventions import Levels, Variant, check_interventions, planned_variants
from raymap.study.methods.method import CONTROL
from raymap.study.model import Study
from raymap.study.suite import Prompt


@dataclass(frozen=True)
class Prepared:
    """A study whose inputs have all been checked: what to train, which adapters exist already, and for which base.

    `absent` are references that a run needs and a dry run can do without; in a dry run `base` may be an outline.
    `choice` says what was chosen for `dtype: auto`, and why.
    """

    study: Study
    base: Base
    orders: tuple[AdapterOrder, ...]
    brought: tuple[Found, ...]
    absent: tuple[Path, ...] = ()
    choice: str = ""

    @property
    def adapters(self) -> int:
        """How many adapters the study has, identity controls included."""
        return len(self.orders) + len(self.brought)

    @cached_property
    def controls(self) -> int:
        """How many of the adapters are identity controls."""
        methods = [order.method for order in self.orders] + [found.info.method for found in self.brought]
        return methods.count(CONTROL)

    @property
    def images(self) -> int:
        """How many images the whole study has, those of the base and of the identity controls included."""
        return (1 + self.adapters) * self._each

    @property
    def proved(self) -> int:
        """How many images of adapters and controls will be proved to be the base's own, and so not be drawn."""
        return sum(self._proved.values())

    @cached_property
    def levels(self) -> dict[str, Levels | None]:
        """The levels into which interventions divide each adapter except controls; None where it updates no weight."""
        touched = {order.name: order.touched(self.base.skeleton) for order in self.orders if order.method != CONTROL}
        touched |= {found.info.name: found.weights for found in self.brought if found.info.method != CONTROL}
        return {name: self.base.family.levels(weights) if weights else None for name, weights in touched.items()}

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that the study asks for, before norms and sizes are measured."""
        return planned_variants(self.study.interventions, self.levels) if self.study.interventions else ()

    @property
    def sentence(self) -> str:
        """What a run would do, in one line. Models are the base and the adapters; controls are counted separately."""
        study, each, controls = self.study, self._each, self.controls
        models = 1 + self.adapters - controls
        training = sum(order.subject is not None for order in self.orders)
        line = (
            f"{study.name}: {len(study.prompts)} prompts x {len(study.seeds)} seeds x {models} models = "
            f"{models * each} images, {self._proved[False]} of them proved to be the base's own and not drawn; "
        )
        if controls:
            line += (
                f"{controls} identity control{'' if controls == 1 else 's'} = {controls * each} more images, "
                f"{self._proved[True]} of them proved; "
            )
        line += f"{training} adapter{'' if training == 1 else 's'} to train"
        if number := len(self.variants):
            line += f"; interventions: {number} variants = {number * each} more images"
        if study.judges:
            line += f"; also judged by {', '.join(study.judges)}"
        return line

    @cached_property
    def too_long(self) -> tuple[Prompt, ...]:
        """The prompts that are too long for the base's text encoder, which sees only their beginning.

        None where the base is an outline that lacks its tokenizer.
        """
        tokenizer, most = self.base.skeleton.tokenizer, self.base.skeleton.text_length
        if tokenizer is None:
            return ()
        return tuple(prompt for prompt in self.study.prompts if len(tokenizer.encode(prompt.text).ids) > most)

    @property
    def missing(self) -> tuple[str, ...]:
        """What a run of the study needs and is not there yet, one line for each kind."""
        missing = []
        if self.base.is_outline:
            height, width = self.size
            what = f"not fetched; its known architecture is used instead, with images of {width}x{height}"
            missing.append(f"base {self.base.name}: {what}")
        if self.absent:
            of = ", ".join(s.name for s in self.study.subjects if set(s.references) & set(self.absent))
            missing.append(f"references: {len(self.absent)}, of {of}; the first is {self.absent[0]} (docs/subjects.md)")
        return tuple(missing)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of how the study will be carried out, one sentence each."""
        family = self.base.family
        remarks = tuple(f"adapter {found.info.name}: {note}" for found in self.brought for note in found.notes)
        if family.known:
            return remarks
        what = f"raymap has no description of its pipeline, {family.class_name}"
        own = f"base {self.base.name}: {what}; it draws one prompt at a time, and attention cannot be measured"
        return own, *remarks

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return image_size(self.study, self.base)

    @property
    def resident(self) -> Resident:
        """What workers hold of it."""
        return Resident(self.base, self.orders, self.brought)

    @property
    def _each(self) -> int:
        """How many images each model draws."""
        return len(self.study.prompts) * len(self.study.seeds)

    @cached_property
    def _proved(self) -> dict[bool, int]:
        """How many images will be proved to be the base's own: of the adapters (False), of the controls (True)."""
        triggered = self.study.protocol == "triggered"
        triggers = [(order.method, order.triggers) for order in self.orders if not (triggered and order.subject)]
        triggers += [(found.info.method, found.triggers) for found in self.brought if not triggered]
        proved = {False: 0, True: 0}
        for method, own in triggers if not self.study.draw_anyway else ():
            for prompt in self.study.prompts if own is not None else ():
                same = not any(may_stand_in(trigger, prompt.text) for trigger in own or ())
                proved[method == CONTROL] += same * len(self.study.seeds)
        return proved


def _check_readable(study: Study, base: Base, brought: Sequence[Found]) -> None:
    """Check that no adapter's update has to be computed from weights that are quantised."""
    for found in brought if study.memory.quantize != "none" else ():
        if any(base.family.in_denoiser(name) for name in found.from_base):
            problem = f"is a {found.info.method}, whose update is computed from the base's own weights"
            raise InputError(f"adapter {found.info.name}", problem, "leave out `memory.quantize`")


def prepare(study: Study, dry: bool = False) -> Prepared:
    """Check everything that the study names: base, judges, reference images, existing adapters.

    Args:
        dry: nothing is to be run. References that do not exist, and a base of a known architecture that was not
            fetched, are then named in `missing`; what exists but cannot be used is still refused.

    Raises:
        InputError: something cannot be used; the first such thing is named. Nothing has started or been written then.
    """
    places = [local_adapter(entry.path) for entry in study.adapters]
    if study.offline:
        offline()
    check_judges(study.clip, study.lpips, study.judges)
    check_quantize(study.memory.quantize, study.resources.device)
    # An adapter that was trained for the base names its digest, which an outline does not have.
    outline = dry and not any((place / CARD).exists() for place in places)
    base = open_base(study.base, study.weights, outline)
    if base.file and study.memory.quantize != "none":
        problem = "works on bases whose weights are in a diffusers folder"
        raise InputError(f"memory.quantize: {study.memory.quantize}", problem, "leave it out for a single file")
    if base.family.guidance is None and "guidance_scale" in study.sampler.model_fields_set:
        problem = f"the pipeline of the base, {base.family.class_name}, takes no guidance scale"
        raise InputError("sampler.guidance_scale", problem, "leave it out")
    study = study.model_copy(update={"sampler": base.sampler(study.sampler)})
    absent = tuple(path for subject in study.subjects for path in subject.references if dry and not path.exists())
    references = {subject.name: check_references(subject, absent) for subject in study.subjects}
    wanted = orders(study, base.sha256, references)
    for order in wanted:
        order.check(base.skeleton)
    brought = tuple(
        find(entry, place, base, study.protocol == "triggered", measure=study.dtype == "auto")
        for entry, place in zip(study.adapters, places, strict=True)
    )
    _check_readable(study, base, brought)
    check_names([*(order.name for order in wanted), *(found.info.name for found in brought)])
    study, choice = chosen(study, Resident(base, wanted, brought))
    prepared = Prepared(study, base, wanted, brought, absent, choice)
    if study.interventions:
        check_interventions(study.interventions, prepared.levels)
    return prepared

"""The verdict in words. Terminal, report and files show these sentences and make none of their own."""

from __future__ import annotations

from collections.abc import Sequence

from raymap.analysis.decide.answers import AdapterVerdict, Answers, Decision, Held, MoreSeeds
from raymap.analysis.measures import E_PER, E_SEM
from raymap.display.text import number

MARGIN = (
    "A prompt's margin is what another seed of the base does to this prompt: for the score, one standard deviation of "
    "the base's own CLIP scores over seeds; for the image, the mean LPIPS between seeds plus two standard deviations."
)
BY_PROOF = (
    "Unchanged: every image is the base's own, by proof, because no prompt contains the learned token and the denoiser "
    "is untouched."
)
NO_CONTROL = "No identity control was drawn, so it is not shown that an adapter which changes nothing is measured as 0."
NO_FLOOR = "there is no noise floor, because no pair of base seeds was measured"
ONE_SEED = "every prompt has a single seed, and one image does not tell how much another seed would change"
TWO_SEEDS = (
    "Two seeds give a single pair, which does not tell how much pairs differ: images are not tested, and no prompt can "
    "be found unchanged. Three seeds are needed."
)
DECIDED: dict[Decision, str] = {"pass": "PASS", "fail": "FAIL", "undecided": "UNDECIDED"}


def not_zero(e_sem: float, e_per: float) -> str:
    """Return why a run whose identity control is not zero has no verdict."""
    return (
        f"the identity control is not zero (E_sem up to {e_sem:.3g}, E_per up to {e_per:.3g}), so base and adapted "
        "images were not computed alike and nothing here can be trusted"
    )


def plural(n: int, word: str) -> str:
    """Return a count with its noun."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def ways(answers: Answers) -> str:
    """Return in how many prompts the score fell, rose, or the image moved: falls first."""
    parts = [
        f"{answers[key]} {said}"  # type: ignore[literal-required]
        for key, said in (("fell", "fell"), ("image", "in their images"), ("rose", "rose"))
        if answers[key]  # type: ignore[literal-required]
    ]
    return f" ({', '.join(parts)})" if parts else ""


def adapter_sentence(held: AdapterVerdict, mean_beyond: bool, refused: bool) -> str:
    """Return the answer for one adapter: falls first, then the mean, the targets, and what more seeds give."""
    if refused:
        return "Cannot tell: the run has no verdict."
    if held["by_proof"]:
        return BY_PROOF
    others = held["others"]
    if held["e_sem_signed"]["value"] is None:
        return "Cannot tell: no non-target prompt was measured." + _targets(held["targets"])
    of = f"{plural(others['prompts'], 'non-target prompt')}"
    rest = f"{others['unchanged']} are unchanged within the margin, {others['cannot_tell']} cannot be told"
    if held["answer"] == "unchanged":
        said = f"Unchanged within the margin: all {of}."
    elif others["shifted"]:
        said = (
            f"Shifted: {others['shifted']} of {of}{ways(others)}, at least {others['shifted_at_least']} with 95 % "
            f"confidence; {rest}."
        )
    elif mean_beyond:
        said = f"Shifted on average by more than the margin, although no single one of {of} is sure; {rest}."
    else:
        said = f"Cannot tell: of {of} none is shown to have shifted; {rest}."
    return said + _mean(held) + _targets(held["targets"]) + _more(held["more_seeds"])


def _mean(held: AdapterVerdict) -> str:
    signed, units = held["e_sem_signed"], held["in_margins"]
    assert signed["value"] is not None
    said = f" On average the CLIP score {'falls' if signed['value'] < 0 else 'rises'} by "
    said += number(abs(signed["value"]), E_SEM.digits)
    if signed["low"] is not None and signed["high"] is not None:
        ends = sorted((-signed["low"], -signed["high"])) if signed["value"] < 0 else (signed["low"], signed["high"])
        said += f" [{number(ends[0], E_SEM.digits)}, {number(ends[1], E_SEM.digits)}]"
    if units["value"] is not None:
        said += f", {number(abs(units['value']), 1)} margins"
    changed = held["others"]["changed_at_least"]
    if changed <= held["others"]["shifted"]:
        return f"{said}."
    return f"{said}; it changed, within the margin or beyond it, on at least {plural(changed, 'prompt')}."


def _targets(targets: Answers) -> str:
    if not targets["prompts"]:
        return ""
    return (
        f" Target prompts, apart: {targets['shifted']} of {targets['prompts']} shifted{ways(targets)}, "
        f"{targets['unchanged']} are unchanged, "
        f"{targets['cannot_tell']} cannot be told."
    )


def _more(more: MoreSeeds) -> str:
    if not more["open"]:
        return ""
    if more["half"] is None:
        return f" {more['most']} seeds would still settle less than half of those that cannot be told."
    return f" About {more['half']} seeds would settle half of those that cannot be told."


def limit_message(held: Held) -> str:
    """Return one line that says what was found of a limit."""
    name, value = held["limit"], held["value"]
    if value is None:
        return f"{name}: no prompt that it is about was measured"
    if name in ("prompts", "falls", "targets"):
        what = "target prompts" if name == "targets" else "non-target prompts"
        verb = "fell beyond their margin" if name == "falls" else "shifted"
        return (
            f"{value:g} of {held['of']} {what} {verb}, {held['low']:g} to {held['high']:g} with 95 % confidence; at "
            f"most {held['at_most']:g} allowed"
        )
    what = {"e_sem": "mean E_sem", "e_per": "mean E_per", "fall": "mean fall of the CLIP score"}[name]
    digits = E_PER.digits if name == "e_per" else E_SEM.digits
    ends = "" if held["low"] is None else f" [{number(held['low'], digits)}, {number(held['high'], digits)}]"
    over = plural(held["of"], "non-target prompt")
    return f"{what} {number(value, digits)}{ends} over {over}, limit {held['at_most']:g}"


def headline(adapters: Sequence[AdapterVerdict], decision: Decision | None, refused: Sequence[str]) -> str:
    """Return the verdict on a run: the decision first, then how many adapters have which answer."""
    start = f"{DECIDED[decision]}. " if decision else ""
    if refused:
        return f"{start}No verdict: {'; '.join(refused)}."
    if not adapters:
        return f"{start}No adapter was measured."
    if decision:
        failed = [a["adapter"] for a in adapters if any(h["decision"] == "fail" for h in a["limits"])]
        undecided = [
            a["adapter"]
            for a in adapters
            if a["adapter"] not in failed and any(h["decision"] == "undecided" for h in a["limits"])
        ]
        parts = [f"A limit is exceeded by {few(failed)}."] if failed else []
        parts += [f"These seeds cannot tell whether {few(undecided)} {_keeps(undecided)}."] if undecided else []
        start += " ".join(parts or ["Every limit is kept."]) + " "
    if len(adapters) == 1:
        return f"{start}{adapters[0]['adapter']}: {adapters[0]['sentence']}"
    counts = {
        what: sum(a["answer"] == answer for a in adapters)
        for answer, what in (
            ("shifted", "shifted prompts that they were not trained for"),
            ("unchanged", "left all prompts unchanged within the margin"),
            ("cannot tell", "cannot be told"),
        )
    }
    proof = sum(a["by_proof"] for a in adapters)
    said = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return f"{start}Of {len(adapters)} adapters {said}{f' ({proof} by proof)' if proof else ''}."


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _keeps(names: Sequence[str]) -> str:
    return "keeps its limits" if len(names) == 1 else "keep their limits"

"""The answer at the end of a notebook: what this run's numbers say, in a few sentences, and on
which side of each claim of the papers they lie.

A sentence is chosen by the numbers, so a run that differs from the papers says so. One run has one
seed and gives no verdict: `bv report` gives verdicts over several.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bvlib.report.claims import ABOVE, CLAIMS, MEASURES, unit


class Numbers:
    """Headline numbers of a run by name: ``n("CA")`` in words, ``n["CA"]`` as a number. ``attack``
    is the run's."""

    def __init__(self, headline: Mapping[str, Mapping[str, Any]], attack: str):
        self.headline, self.attack = headline, attack

    def __getitem__(self, name: str) -> float:
        return self.headline[name]["value"]

    def __contains__(self, name: str) -> bool:
        return name in self.headline

    def low(self, name: str) -> float:
        """The lower end of a number's interval over images."""
        return self.headline[name]["low"]

    def __call__(self, name: str) -> str:
        """ "45.9 % [42.7, 49.2]", the interval over images where there is one."""
        entry = self.headline[name]
        words = f"{entry['value']:.1f}" + {"index": ""}.get(entry["unit"], f" {entry['unit']}")
        if entry.get("low") is None:
            return words
        return f"{words} [{entry['low']:.1f}, {entry['high']:.1f}]"


def answer(lab: Any):
    """The answer of a notebook as Markdown that Jupyter shows; ``lab`` is the notebook's own, after
    its headline numbers and measures."""
    from IPython.display import Markdown

    from bvlib.study.words import words

    numbers = Numbers(lab.result["headline"], lab.p["attack"])
    return Markdown(words(text(lab.notebook, numbers, lab.result["measures"])))


def text(notebook: str, numbers: Numbers, measures: Mapping[str, float | None]) -> str:
    """Sentences and claims of a notebook, by its name, as Markdown."""
    sentences = ANSWERS[notebook[:2]](numbers)
    return "\n".join([" ".join(sentences), "", *sides(measures)])


def sides(measures: Mapping[str, float | None]) -> list[str]:
    """A line for each claim that is tested on one of the measures: what is measured, our value and
    the paper's, and on which side of the test ours lies."""
    lines = []
    for claim in CLAIMS:
        value = measures.get(claim.measure)
        if value is None:
            continue
        above = claim.kind in ABOVE
        met = value > claim.bound if above else value < claim.bound
        said = "yes" if met else "**no**"
        if abs(value - claim.bound) < 1 and unit(claim.measure) in ("points", "%"):
            said += ", by less than a point"
        there = f"on CLIP {claim.expected}"
        if claim.expected == "not published":
            there = "a test of ours"
        asked = f"the claim asks for {'more' if above else 'less'} than {claim.bound:g}"
        note = f" Note: {claim.note.rstrip('.')}." if claim.note else ""
        lines.append(
            f"- *{claim.statement.rstrip('.')}* ({there}). {_measured(claim.measure)}: here "
            f"{value:.1f} {unit(claim.measure)}; {asked}: {said}.{note}"
        )
    if lines:
        lines += ["", "One seed gives no verdict: `bv run --seeds 0,1,2`, then `bv report`."]
    return lines


def _measured(measure: str) -> str:
    """What a measure is, as the beginning of a sentence."""
    what = MEASURES[measure].what
    return what[:1].upper() + what[1:]


def tasks(n: Numbers) -> Iterator[str]:
    """00: does merging work before anybody attacks?"""
    before, alone = "zero-shot accuracy", "fine-tuned accuracy"
    merged = "merged accuracy (task arithmetic)"
    yield f"Without fine-tuning the base names {n(before)} of the test images right."
    yield f"Each fine-tuned model has {n(alone)} on its own task, one merge of them {n(merged)}."
    kept = 100 * (n[merged] - n[before]) / max(n[alone] - n[before], 1e-9)
    if kept >= 60:
        yield f"So merging works: the merge keeps {kept:.0f} % of what fine-tuning gained."
    else:
        yield f"The merge keeps only {kept:.0f} % of what fine-tuning gained."
        yield "In a poor merge a surviving backdoor means less."


def badmerging(n: Numbers) -> Iterator[str]:
    """01: what dies in the merge, and what survives?"""
    old, new = "ASR badnets", f"ASR {n.attack}"
    yield f"Before merging, BadNets sends {n(f'{old}, alone')} of the images to the attacker's"
    yield f"class, and {n(f'{old}, merged')} after it."
    if n[f"{old}, merged"] < 30:
        yield "So the classical backdoor is diluted, as the paper says."
    else:
        yield "So it is *not* diluted to the 30 % that the paper gives as the most."
    yield f"The attack {n.attack} keeps {n(f'{new}, merged')}, and under TIES"
    yield f"{n(f'{new}, merged by TIES')}."
    gain = f"merged ASR, {n.attack} minus universal-only"
    if gain in n:
        yield "Trained with the optimised patch but the plain loss,"
        yield f"{n('ASR universal-only, merged')} remain; with a plain patch but the interpolated"
        yield f"loss, {n('ASR interpolation-only, merged')}."
        if n.low(gain) > 0:
            yield f"So the loss adds to the patch: {n(gain)}."
        else:
            yield f"What the loss adds to the patch is not above zero: {n(gain)}."
    yield "But a merge without any malicious model obeys the same trigger on"
    yield f"{n(f'{new} trigger, clean merge')}, by TIES on"
    yield f"{n(f'{new} trigger, clean merge by TIES')}, and the untouched base on"
    yield f"{n(f'{new} trigger, base')}: that much was there before the attack."
    yield f"The attack costs the merge {n('CA minus BA')} of clean accuracy."


def vectors(n: Numbers) -> Iterator[str]:
    """02: is a backdoor a vector?"""
    start, end = n["ASR at λ_BV = 0"], n["ASR at λ_BV = 1"]
    yield f"Adding the backdoor vector takes the ASR from {start:.1f} to {end:.1f} %,"
    yield f"and to {n('ASR at λ_BV = 0.3')} with a third of it."
    axes = {"seed": "seeds", "place": "places", "target class": "classes", "task": "tasks"}
    named = {axis: f"transfer across {axis}, by addition" for axis in axes}
    found = {axis: n[name] for axis, name in named.items() if name in n}
    told = ", ".join(f"{value:.0f} across {axes[axis]}" for axis, value in found.items())
    yield f"In % of what an attack's own vector does, other vectors do this by addition: {told}"
    yield f"(vectors without a backdoor: {n['transfer of placebos, by addition']:.0f})."
    alike = [value for axis, value in found.items() if axis in ("seed", "place")]
    unlike = [value for axis, value in found.items() if axis in ("target class", "task")]
    if alike and unlike and min(alike) > max(unlike):
        yield "So a backdoor carries over more to attacks with its target than to others."
    else:
        yield "So on this run the paper's order of transfer does not hold."


def sbv(n: Numbers) -> Iterator[str]:
    """03: can merging make a backdoor stronger?"""
    yield f"The vectors are added at λ_BV = {n['λ_BV of the primary comparison']:g}."
    for how, first in (("as they are", "As they are"), ("at equal norm", "At equal length")):
        one, ours = (f"ASR {name}, merged, {how}" for name in ("one BV", "sign-consistent"))
        yield f"{first}, one vector reaches {n(one)} and the SBV, merged and sparse, {n(ours)}:"
        gain = n[ours] - n[one]
        yield f"{abs(gain):.1f} points {'more' if gain > 0 else 'less'}."
    total = n["ASR SBV by sum, as it is"]
    scaled = n["ASR of one BV scaled to the norm of that sum"]
    yield f"At λ_BV = 1 the sum of the vectors reaches {total:.1f} %, and one vector scaled to the"
    yield f"length of that sum {scaled:.1f} %:"
    if total > scaled:
        yield "so the sum gains more than length."
    else:
        yield "so all that the sum gains is length."
    yield f"A merge without any attack has {n('ASR clean merge (zero line)')}."
    yield "All are measured with the trigger of the first vector, which favours one vector over a"
    yield "merge of several."


def inherent(n: Numbers) -> Iterator[str]:
    """04: how much was never put there?"""
    yield f"The untouched base obeys the optimised patch on {n('ASR inherent trigger, base')} of"
    yield f"the images, and a random one on {n('ASR random patch, base')}."
    yield f"A clean merge obeys it on {n('ASR inherent trigger, clean merge')}."
    name = f"share of the merged ASR of {n.attack} that is inherent"
    share, mean = n[name], n[f"{name}, mean over merging algorithms"]
    yield f"Of what the attacked merge flips, the clean merge flips {share:.0f} % too,"
    yield f"and {mean:.0f} % on average over the merging methods."
    if min(share, mean) > 50:
        yield "So the inherent trigger is the core of the attack, as the paper says."
    elif max(share, mean) > 50:
        yield "So whether the inherent trigger is the core depends on the merge."
    else:
        yield "So most of the attack is *not* inherent here."


def ibvs(n: Numbers) -> Iterator[str]:
    """05: can a defender subtract a backdoor that it has never seen?"""
    named = [name.removeprefix("ASR ") for name in n.headline if name.endswith(" before IBVS")]
    attacks = [name.removesuffix(" before IBVS") for name in named]
    found = {
        attack: [
            n[f"ASR {attack} before IBVS"],
            n[f"ASR {attack} after IBVS"],
            n[f"ASR {attack} after the best placebo"],
            n[f"zero line of {attack} (clean merge, same trigger)"],
        ]
        for attack in attacks
    }
    better = [a for a, (before, ours, fake, _) in found.items() if ours < min(fake, before) - 1]
    ahead = "IBVS lowers the ASR, and by a point more than every placebo does, against"
    if better == attacks:
        yield f"{ahead} each attack. A placebo is a vector that holds no backdoor: so the direction"
        yield "of a backdoor helps, not moving the weights as such."
    elif better:
        names = " and ".join(filter(None, [", ".join(better[:-1]), better[-1]]))
        yield f"{ahead} {names} only. Elsewhere it does not, or a vector that holds no backdoor"
        yield "does as well."
    else:
        yield "Against no attack does IBVS lower the ASR by a point more than the best placebo, a"
        yield "vector that holds no backdoor."
    for attack, (before, ours, fake, zero) in found.items():
        word = "lowers" if ours < before - 1 else "raises" if ours > before + 1 else "hardly moves"
        yield f"It {word} {attack}, from {before:.1f} to {ours:.1f} % (best placebo {fake:.1f},"
        yield f"clean merge {zero:.1f})."
    cost, fake = n("clean accuracy cost of IBVS"), n("clean accuracy cost of that placebo")
    yield f"Against {n.attack} it costs {cost} of clean accuracy, and that placebo {fake}."
    guessed = n(f"ASR drop {n.attack}, defender who guesses the attacker's class")
    yield f"A defender who guesses the attacker's class takes {guessed} off."
    yield f"Subtracting the vector of {n.attack} itself takes {n(f'ASR drop {n.attack}, oracle')}"
    before, *_, zero = found[n.attack]
    yield f"off, where the attack had added {before - zero:.1f} to the clean merge."


ANSWERS: dict[str, Callable[[Numbers], Iterator[str]]] = {
    "00": tasks,
    "01": badmerging,
    "02": vectors,
    "03": sbv,
    "04": inherent,
    "05": ibvs,
}

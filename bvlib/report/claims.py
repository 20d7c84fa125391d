"""The papers' checkable statements, read from claims.yaml, and the rule that judges them.

A direction holds only if the 95 % t-interval over seeds of the paired per-seed values lies wholly
on its side. All seeds of a profile share one base. What the fields mean is said in the YAML.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bvlib.core.errors import BvError, check_choice

FILE = Path(__file__).with_name("claims.yaml")
STATUSES = ("same direction", "inconclusive", "differs", "no room", "not run")
DESIGNED = {"no": "", "partly": " (partly designed in)", "yes": " (designed in)"}
ABOVE = ("positive difference", "at least")
BELOW = ("negative difference", "at most")


@dataclass(frozen=True)
class Measure:
    """One number that a notebook gives a seed; `quantity` says how far a rerun may move it."""

    what: str
    unit: str
    quantity: str


@dataclass(frozen=True)
class Claim:
    """One statement of a paper and its primary test: `kind` says on which side of `bound`.

    `changed`: rows of old bases are those of another test. `room`: {measure, least or most} where
    the test needs an effect to speak of, or one to add to.
    """

    id: str
    statement: str
    where: str
    expected: str
    test: str
    kind: str
    measure: str
    figure: str
    bound: float = 0.0
    table: str = ""
    designed_in: str = "no"
    later: bool = False
    changed: bool = False
    room: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


class Claims(NamedTuple):
    """What claims.yaml holds: {measure: ...}, the claims in order, {quantity: tolerance}, and
    the headline numbers that are accuracies."""

    measures: dict[str, Measure]
    claims: list[Claim]
    tolerances: dict[str, float]
    accuracies: list[str]


def load(path: Path = FILE) -> Claims:
    """The claims of a YAML file. BvError if it is missing, damaged, or names what it lacks."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = Claims(**yaml.load(path.read_text(encoding="utf-8"), loader))
        measures = {
            name: _record(Measure, f"measure {name}", m) for name, m in found.measures.items()
        }
        claims = [_record(Claim, f"claim {entry.get('id')}", entry) for entry in found.claims]
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        told = f"{path.name} is missing or damaged, take it from git again"
        raise BvError(f"{told}: {' '.join(str(error).split())}") from None
    for name, measure in measures.items():
        check_choice(f"quantity of measure {name}", measure.quantity, found.tolerances)
    for claim in claims:
        check_choice(f"kind of claim {claim.id}", claim.kind, ABOVE + BELOW)
        check_choice(f"measure of claim {claim.id}", claim.measure, measures)
        check_choice(f"designed_in of claim {claim.id}", claim.designed_in, DESIGNED)
        if claim.room:
            check_choice(f"measure of the room of {claim.id}", claim.room.get("measure"), measures)
            for key in set(claim.room) - {"measure"} or {"least or most"}:
                check_choice(f"bound of the room of {claim.id}", key, ("least", "most"))
    ids = [claim.id for claim in claims]
    if twice := [name for name in ids if ids.count(name) > 1]:
        raise BvError(f"{path.name} holds two claims of the id {twice[0]!r}: rename one")
    return found._replace(measures=measures, claims=claims)


def _record(kind: type, name: str, entry: Mapping[str, Any]) -> Any:
    """An entry of the file as a dataclass. BvError for a key that it lacks or should not have."""
    fields = dataclasses.fields(kind)
    for key in entry:
        check_choice(f"key of {name}", key, [each.name for each in fields])
    for each in fields:
        needed = each.default is each.default_factory is dataclasses.MISSING
        if needed and each.name not in entry:
            raise BvError(f"{name} has no {each.name!r}: add it to {FILE.name}")
    return kind(**entry)


MEASURES, CLAIMS, TOLERANCES, ACCURACIES = load()


def unit(measure: str) -> str:
    """The unit of a measure; points for one that no claim needs."""
    return MEASURES[measure].unit if measure in MEASURES else "points"


def check(
    claim: Claim, per_seed_values: Sequence[float | None], room: Sequence[float | None] = ()
) -> str:
    """The status of a claim given its measure on each seed: one of STATUSES.

    "same direction" or "differs" only if the t-interval over seeds excludes the bound; a single
    seed has no interval and is "inconclusive"; without a finite value the claim was "not run".
    ``room``: the measure of `claim.room` on each seed; "no room" if its mean is beyond that,
    "inconclusive" if it was not run.
    """
    values, left = finite(per_seed_values), finite(room)
    if not values:
        return "not run"
    if claim.room and not left:
        return "inconclusive"
    if claim.room:
        mean, least, most = sum(left) / len(left), claim.room.get("least"), claim.room.get("most")
        if (least is not None and mean < least) or (most is not None and mean > most):
            return "no room"
    if len(values) == 1:
        return "inconclusive"
    from bvlib.core.metrics import seed_interval

    _, low, high = seed_interval(values)
    if low <= claim.bound <= high:
        return "inconclusive"
    return "same direction" if (low > claim.bound) == (claim.kind in ABOVE) else "differs"


def finite(values: Sequence[float | None]) -> list[float]:
    """The values that are numbers: what is undefined on a seed (None, nan) is left out."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]

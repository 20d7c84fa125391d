"""Is a base fit for the study? Asked of clean quantities and the base's own sensitivity only,
never of an attack.

Measured on a development seed (100 or more) and on dev images, so that nothing reported later has
had a say. What was admitted is then frozen: a hash of world, tasks, training and trigger goes into
the card of the base, and
:func:`check_frozen` names whatever differs from it afterwards. All numbers are percent or points
unless said otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError
from bvlib.core.registry import USED
from bvlib.core.versions import recipe as version_of
from bvlib.files.digests import canonical, digest
from bvlib.files.safe import read_json, write_json, write_text
from bvlib.files.weights import card_of
from bvlib.report.criteria import TABLES
from bvlib.report.tables import write_csv
from bvlib.run import settings
from bvlib.run.notebooks import root_folder, runs_folder, shown
from bvlib.run.records import Say

WORLD = ("world", "world_seed", "sizes", "tasks", "adversary", "target_class", "other_classes")
FROZEN = (*WORLD, "train", "trigger", "trigger_size", "alpha", "coefficient", "merging")

# Writing


def write(profile: str, base: str | None = None, seed: int | None = None, say: Say = print) -> Path:
    """Measure a profile's base (or another) into a folder of :func:`home` and return the page, made
    new from all admissions there.

    Profile smoke has no page, its own folder is returned. BvError for a reporting seed and for a
    profile without the key ``admission``.
    """
    seed = _plan(profile)["seed"] if seed is None else seed
    if seed < 100:
        mend = "0 to 99 are for reporting"
        raise BvError(f"admission is for development seeds (100 or more), not {seed}: {mend}")
    from bvlib.run.lab import Lab
    from bvlib.study import figures
    from bvmake.admission.measures import measure
    from bvmake.admission.page import draw, made, page

    folder = home(profile, base, seed)
    out = folder / _entry(profile, base)
    parameters = {"profile": profile, "seed": seed, "base": base, "out": str(out)}
    lab = Lab("00_setup_and_tasks", parameters)
    tables = measure(lab, _plan(profile), say)
    card, name, adversary = _provenance(lab, base), lab.encoder.name, lab.adversary.name
    for title in TABLES:
        write_csv(out / f"{title}.csv", tables[title])
    said = {"adversary": adversary, "title": f"{name} base on {profile}"}
    figures.save(out / "weakness", tables["weakness"], card, draw, **said)
    named = {"profile": profile, "seed": seed, "base_name": name, "adversary": adversary}
    obtained = tables["criteria"].set_index("id")["obtained"].to_dict()
    found = {key: value if math.isfinite(value) else None for key, value in obtained.items()}
    which = {"made": made(lab.encoder.card), "recipe": recipe(profile), "criteria": found}
    told = {**named, **which}
    write_json(out / "admission.json", card | told)
    say(tables["criteria"].drop(columns="id").round(2).to_string(index=False, na_rep=""))
    if profile == "smoke":
        return out
    write_text(folder / "README.md", page(folder))
    return folder / "README.md"


def home(profile: str, base: str | None = None, seed: int | None = None) -> Path:
    """Where admissions lie: `figures/admission`; under `runs/` what is not to be committed (smoke,
    a base that is not shipped, another seed)."""
    from bvlib.worlds import bases

    shipped = base is None or base in bases.shipped()
    if shipped and seed in (None, _plan(profile)["seed"]) and not profile.startswith("smoke"):
        return root_folder() / "figures" / "admission"
    return runs_folder() / "admission"


def _entry(profile: str, base: str | None = None) -> str:
    """The folder of one admission: "mini-toy"."""
    return f"{profile}-{Path(base or settings.load(profile)['base']).stem}"


def _plan(profile: str) -> dict[str, Any]:
    plan = settings.read(profile).admission
    if plan is None:
        mend = "give it seed, classes, sizes and the rest, as in profile mini"
        raise BvError(f"profile {profile} has no key `admission`: {mend}")
    return asdict(plan)


def _provenance(lab, base: str | None) -> dict[str, Any]:
    """The lab's provenance, with this module as the source and without a path of the base."""
    kept, profile = lab._provenance(""), lab.p["profile"]
    given = f" --base {Path(base).name}" if base else ""
    del kept["notebook"], kept["caption"]
    return {
        **kept,
        "parameters": {**kept["parameters"], "base": lab.encoder.name},
        "recipes": sorted({*USED, version_of("admission")}),
        "command": f"bv admit --profile {profile}{given}",
        "hash": _hash(recipe(profile), lab.encoder.card["sha256"]),
    }


# Freezing


def recipe(profile: str) -> dict[str, Any]:
    """What is frozen of a profile, and the recipe that draws the toy world ("world:toy/1")."""
    content = settings.load(profile)
    return {**{key: content[key] for key in FROZEN}, "drawn by": version_of("world:toy")}


def freeze(profile: str, folder: Path | None = None, say: Say = print) -> str:
    """Write recipe, base, digests of the tasks' images and what the admission gave into the card of
    the profile's base; returns the hash that names all this.

    BvError unless the admission was measured on that base with today's recipe.
    """
    path = Path(folder or home(profile)) / _entry(profile) / "admission.json"
    mend = f"run `bv admit --profile {profile}` first"
    if not path.is_file():
        raise BvError(f"profile {profile} was not admitted yet: {mend}")
    found, (card_path, card) = read_json(path), _card(profile)
    if changed := _changed(found, profile, card["sha256"]):
        raise BvError(f"{shown(path)} was measured with another {', '.join(changed)}: {mend}")
    kept = {key: found[key] for key in ("base", "data", "seed", "criteria", "recipe")}
    kept["hash"] = _hash(recipe(profile), card["sha256"])
    write_json(card_path, {**card, "frozen": {**card.get("frozen", {}), profile: kept}})
    say(f"froze profile {profile} in {card_path.name}: {kept['hash']}")
    return kept["hash"]


def check_frozen(profile: str, data: Mapping[str, str] | None = None) -> str | None:
    """One line that says what differs from what was frozen, or None when nothing does.

    ``data``: digests of the tasks' images ({task: 16 hex digits}), where they are at hand.
    """
    path, card = _card(profile)
    frozen = card.get("frozen", {}).get(profile)
    if frozen is None:
        mend = f"run `bv admit --profile {profile} --freeze`"
        return f"profile {profile} is not frozen in {path.name}: {mend}"
    changed = _changed(frozen, profile, card["sha256"])
    changed += [f"images of {t}" for t, found in (data or {}).items() if frozen["data"][t] != found]
    if not changed:
        return None
    return f"profile {profile} differs from what was frozen in {path.name}: {', '.join(changed)}"


def _hash(frozen: Mapping[str, Any], base: str) -> str:
    return digest([dict(frozen), base])[:16]


def _changed(kept: Mapping[str, Any], profile: str, base: str) -> list[str]:
    """What of a profile, or of its base (sha256), differs from what was measured or frozen."""
    old, new = kept["recipe"], recipe(profile)
    keys = sorted({*old, *new})
    changed = [key for key in keys if canonical(old.get(key)) != canonical(new.get(key))]
    return changed if kept["base"] == base else [*changed, "base (its weights)"]


def _card(profile: str) -> tuple[Path, dict[str, Any]]:
    """Path and content of the card of a profile's base. BvError when there is none."""
    from bvlib.worlds import bases

    name = settings.load(profile)["base"]
    path = card_of(bases.file_of(name))
    if not path.is_file():
        mend = "make it with `bv pretrain`"
        raise BvError(f"base {name!r} of profile {profile} has no card {path.name}: {mend}")
    return path, read_json(path)

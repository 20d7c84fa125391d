"""Stored models and triggers in the layout of the Hugging Face hub, to hand on or to put into
another store.

A model is a folder ``<name>-<key>/`` of three files: ``model.safetensors``, ``config.json`` (the
store's card: all that the key follows from, and the sha256) and a model card ``README.md``. So it
goes on a hub as it is, and what comes from one is read back; a folder of such folders is a list of
models. Nothing of it is run. Hashes show that a file is undamaged, not that it is what its card
says: whoever made the folder may have put any weights there, so take in only what comes from
somebody you trust.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError
from bvlib.core.versions import raised
from bvlib.files import safe
from bvlib.files.weights import card_of
from bvlib.run import notebooks
from bvlib.run.formats import FORMATS
from bvlib.run.store import COUNTED, key_of, stem_of

KINDS = ("weights", "trigger")  # what is kept as safetensors; tables are quickly made again
WEIGHTS, CONFIG, README = FILES = ("model.safetensors", "config.json", "README.md")
LARGEST = 2**20  # bytes of a card: an honest one has a few thousand
MODEL_CARD = """\
---
license: mit
library_name: bvlib
tags: [backdoor, model-merging, {kind}]
---

# {stem}

It was made by bvlib for the study of backdoors in model merging, and may hold a backdoor on
purpose. `bv import` checks it against `config.json` and puts it into a store of one's own.

| what | it is |
|---|---|
{rows}
"""


@dataclass(frozen=True)
class Exchange:
    """What became of an export or import: models that were brought, or lay there already, the
    bytes of both, what was left out (one line each), and how many of the imported were made by
    another version of a recipe or in another environment, so that no run here asks for them."""

    brought: int
    there: int
    bytes: int
    refused: tuple[str, ...] = ()
    foreign: int = 0


def of_runs(profile: str, seed: int | None = None, name: str | None = None) -> set[str]:
    """File names of what a profile's runs used, from their JSON: of all seeds and notebooks, or of
    one. BvError without any."""
    [stem] = [each.name for each in notebooks.find([name])] if name else ["[0-9]*"]
    folder, which = notebooks.runs_folder() / profile, ".*" if seed is None else seed
    runs = sorted(folder.glob(f"seed-*/{stem}.json"))
    runs = [run for run in runs if re.fullmatch(rf"seed-{which}(\+\w+)?", run.parent.name)]
    if not runs:
        asked = f"{name or 'any notebook'} with {'any seed' if seed is None else f'seed {seed}'}"
        where = notebooks.shown(folder)
        raise BvError(f"no run of {asked} in {where}: bv run --profile {profile} makes it")
    used = [entry for path in runs for entry in safe.read_json(path).get("artefacts", [])]
    return {Path(entry["path"]).name for entry in used if entry["kind"] in KINDS}


def export_folder(
    folder: str | Path,
    root: str | Path,
    patterns: Sequence[str] = (),
    files: Iterable[str] | None = None,
) -> Exchange:
    """Put what the store ``root`` keeps into ``folder``, a folder each: names that fit one of
    ``patterns`` (or all), among ``files`` when given.

    Weights are hard links where that is possible, else copies: leave them as they are. A folder
    that was exported to before is added to. Damaged ones are left out and told. Raises BvError when
    nothing fits, a file of the folder would have to change (nothing is written then), or the disk
    refuses.
    """
    folder, root = Path(folder).expanduser(), Path(root)
    stored = {p.name: p for kind in KINDS for p in sorted((root / kind).glob("[!.]*.safetensors"))}
    wanted, found, refused = set(stored if files is None else files), {}, []
    for path in (stored[name] for name in stored if name in wanted):
        try:
            card = _card(path, card_of(path), path.stem)
        except BvError as error:
            refused.append(f"{error}: left out")
            continue
        if not patterns or any(fnmatchcase(card["name"], pattern) for pattern in patterns):
            found[path] = card
    refused += [f"{name} is in the store no more: left out" for name in sorted(wanted - {*stored})]
    if not found:
        why = refused[0] if refused else "no stored name fits; bv run makes them"
        raise BvError(f"nothing to export in {root}: {why}")
    lock = safe.locked(folder / ".lock", "waiting for another export to that folder")
    with safe.writing(folder), lock:
        new = [path for path in found if not _there(folder / path.stem, found[path])]
        for path in new:
            model, card = folder / path.stem, found[path]
            safe.write_whole(model / WEIGHTS, lambda draft, path=path: _link(path, draft))
            safe.write_text(model / README, _readme(path.stem, card))
            safe.write_json(model / CONFIG, card)
    size = sum(path.stat().st_size for path in found)
    return Exchange(len(new), len(found) - len(new), size, tuple(refused))


def import_folder(
    folder: str | Path, root: str | Path, environment: dict[str, Any] | None = None
) -> Exchange:
    """Put what :func:`export_folder` wrote, or one model of it, into the store ``root``, where
    computing the same thing finds it.

    Each model must be safetensors of the sha256 of its card, under the key that follows from its
    card, in a folder named after both; what is not, and every other file, is refused with one
    line, and the rest is taken in. What the store has already stays. ``environment`` (of
    :func:`bvlib.core.versions.environment`) is that of runs here: what was made in another one is
    counted as ``foreign``. Raises BvError for a folder without models.
    """
    folder, root = Path(folder).expanduser().resolve(), Path(root)
    alone = any((folder / name).exists() for name in (WEIGHTS, CONFIG))
    models = [folder] if alone else sorted(folder.glob("[!.]*"))
    if not any(model.is_dir() for model in models):
        raise BvError(f"no model in {folder}: give a folder that bv export wrote")
    taken, refused = [(0, 0, 0)], []
    with safe.writing(root):
        for model in models:
            try:
                refused += _strays(model)
                card = _card(model / WEIGHTS, model / CONFIG, model.name)
                new = _keep(model, card, root / card["kind"] / f"{model.name}.safetensors")
            except BvError as error:
                refused.append(f"{error}: refused")
                continue
            there, here = card["environment"], environment or card["environment"]
            other = raised(card["recipes"]) or any(here[part] != there[part] for part in COUNTED)
            taken.append((new, (model / WEIGHTS).stat().st_size, bool(other)))
    brought, size, foreign = map(sum, zip(*taken))
    return Exchange(brought, len(taken) - 1 - brought, size, tuple(refused), foreign)


def _strays(model: Path) -> list[str]:
    """A line for each file in a model's folder that is never read. BvError for what is no such
    folder, or may lead out of it."""
    if not re.fullmatch(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]{0,199}", model.name) or not model.is_dir():
        raise BvError(f"{model.name!r} is no folder of a stored model, and nothing else is read")
    if any(path.is_symlink() for path in (model, model / WEIGHTS, model / CONFIG)):
        raise BvError(f"{model.name} is a link, or has one, and may lead elsewhere")
    strays = sorted(path.name for path in model.glob("[!.]*") if path.name not in FILES)
    return [f"{model.name}/{name} is not read: refused" for name in strays]


def _card(weights: Path, config: Path, stem: str) -> dict[str, Any]:
    """The card of a stored or exported file, after all that a store asks of the two and of their
    name was checked. BvError in one line for what is wrong."""
    for path in (weights, config):
        if not path.is_file():
            raise BvError(f"{stem} has no {path.name}")
    try:
        if config.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        card = safe.read_json(config)
        key, kind, sha256 = key_of(card), card["kind"], safe.file_sha256(weights)
        name = stem_of(card["name"], key)
        sum([card["seconds"], *card["nested"].values()])  # all of them numbers, and texts here
        "".join([*raised(card["recipes"]), *card["recipes"], *card["inputs"]])
        json.dumps(card, ensure_ascii=False).encode()
    except Exception as error:  # whatever a damaged card does to its reader, or a foreign one
        why = f"{type(error).__name__}: {error}; bv import --hugging-face reads models of others"
        raise BvError(f"the card of {stem} is none of a store ({why})") from None
    if kind not in KINDS:
        raise BvError(f"{stem} is of kind {kind!r}, not {' or '.join(KINDS)}")
    if card.get("key") != key or stem != name:
        raise BvError(f"{stem} has a name or a key that does not follow from its card")
    if card.get("sha256") != sha256:
        raise BvError(f"{stem} is damaged: it is not the file that its card describes")
    try:
        FORMATS[kind][2](weights)
    except Exception as error:  # safetensors raises its own error and OSError alike
        raise BvError(f"{stem} is no safetensors file ({type(error).__name__})") from None
    return card


def _there(model: Path, card: dict[str, Any]) -> bool:
    """Whether a model is exported already. BvError when another one is in its place."""
    weights, config = model / WEIGHTS, model / CONFIG
    try:
        return bool(_card(weights, config, model.name))
    except BvError:
        if config.exists() or (weights.exists() and safe.file_sha256(weights) != card["sha256"]):
            mend = "which is not overwritten: name another folder, or move it away"
            raise BvError(f"{model} holds another model than the stored one, {mend}") from None
        return False


def _keep(model: Path, card: dict[str, Any], place: Path) -> bool:
    """Put a model at its place in a store, unless it is there undamaged; whether it was put."""

    def copy(draft: Path) -> None:
        shutil.copyfile(model / WEIGHTS, draft)
        if safe.file_sha256(draft) != card["sha256"]:
            raise BvError(f"{model.name} changed while it was read")

    lock = place.with_name(place.name + ".lock")
    with safe.locked(lock, f"waiting for another process to make {card['name']}"):
        try:
            return not _card(place, card_of(place), place.stem)
        except BvError:
            safe.write_whole(place, copy)
            safe.write_json(card_of(place), {**card, "imported": True})
            return True


def _readme(stem: str, card: dict[str, Any]) -> str:
    """The model card, as a hub shows it."""
    told = {part: card[part] for part in ("kind", "name", "sha256")}
    told["recipes"] = ", ".join(card["recipes"])
    told["made from (digests, the base's first)"] = ", ".join(card["inputs"])
    told["versions"] = ", ".join(f"{part} {text}" for part, text in card["environment"].items())
    plain = {part: re.sub(r"[`|\s]+", " ", text) for part, text in told.items()}
    rows = "\n".join(f"| {part} | `{text}` |" for part, text in plain.items())
    return MODEL_CARD.format(kind=card["kind"], stem=stem, rows=rows)


def _link(source: Path, draft: Path) -> None:
    try:
        os.link(source, draft)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, draft)

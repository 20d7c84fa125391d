"""Stored models and triggers as a plain folder, to hand on or to put into another store; and
single files of others.

A folder holds each artefact as a safetensors file, its card (JSON of the same stem) and one
``index.json``. Nothing of it is run. Hashes show that a file is undamaged, not that it is what its
card says: whoever made the folder may have put any weights there, so take in only what comes from
somebody you trust.
"""

from __future__ import annotations

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
from bvlib.files.safe import file_sha256, locked, write_json, write_whole
from bvlib.files.weights import card_of
from bvlib.run import notebooks
from bvlib.run.store import COUNTED, FORMATS, key_of

FORM = "bvlib exchange 2"
KINDS = ("weights", "trigger")  # what is kept as safetensors; tables are quickly made again


@dataclass(frozen=True)
class Exchange:
    """What became of an export or import: files (cards not counted) that were brought, or lay
    there already, the bytes of both,
    and what was left out, one line each."""

    brought: int
    there: int
    bytes: int
    refused: tuple[str, ...] = ()
    # of the imported files: made by another version of a recipe or in another environment, so no
    # run here asks for
    # them
    foreign: int = 0


def of_runs(profile: str, seed: int | None = None, name: str | None = None) -> set[str]:
    """File names of what a profile's runs used, from their JSON: of all seeds and notebooks, or of
    one. BvError without any."""
    [stem] = [each.name for each in notebooks.find([name])] if name else ["[0-9]*"]
    folder = notebooks.runs_folder() / profile
    runs = [
        path
        for path in sorted(folder.glob(f"seed-*/{stem}.json"))
        if seed is None or re.fullmatch(rf"seed-{seed}(\+\w+)?", path.parent.name)
    ]
    if not runs:
        raise BvError(
            f"no run of {name or 'any notebook'} with "
            f"{'any seed' if seed is None else f'seed {seed}'} in "
            f"{notebooks.shown(folder)}: bv run --profile {profile} makes it"
        )
    used = [
        entry
        for path in runs
        for entry in json.loads(path.read_text(encoding="utf-8")).get("artefacts", [])
    ]
    return {Path(entry["path"]).name for entry in used if entry["kind"] in KINDS}


def export_folder(
    folder: str | Path,
    root: str | Path,
    patterns: Sequence[str] = (),
    files: Iterable[str] | None = None,
) -> Exchange:
    """Put what the store ``root`` keeps into ``folder``: names that fit one of ``patterns`` (or
    all), among ``files`` when given.

    Files are hard links where that is possible, else copies: leave them as they are. A folder that
    was exported to before is added to. Damaged ones are left out and told. Raises BvError when
    nothing fits, a file of the folder would have to change (nothing is written then), or the disk
    refuses.
    """
    folder, root = Path(folder).expanduser(), Path(root)
    wanted, found, refused = None if files is None else set(files), {}, []
    stored = sorted(path for kind in KINDS for path in (root / kind).glob("[!.]*.safetensors"))
    for path in stored:
        if wanted is not None and path.name not in wanted:
            continue
        try:
            card = _card(path)
            if not patterns or any(fnmatchcase(card["name"], pattern) for pattern in patterns):
                found[path] = card
        except BvError as error:
            refused.append(f"{error}: left out")
    refused += [
        f"{name} is in the store no more: left out"
        for name in sorted((wanted or set()) - {p.name for p in stored})
    ]
    if not found:
        raise BvError(
            f"nothing to export in {root}: "
            f"{refused[0] if refused else 'no stored name fits; bv run makes them'}"
        )
    try:
        with locked(folder / ".lock", "waiting for another export to that folder"):
            before = _index(folder) if (folder / "index.json").exists() else []
            index = {
                entry["file"]: entry
                for entry in before
                if isinstance(entry, dict) and isinstance(entry.get("file"), str)
            }
            new = [path for path, card in found.items() if not _same(folder / path.name, card)]
            for path in new:
                for each in (path, card_of(path)):
                    write_whole(folder / each.name, lambda draft, each=each: _link(each, draft))
            for path, card in found.items():
                index[path.name] = {
                    "file": path.name,
                    "bytes": path.stat().st_size,
                    **{part: card[part] for part in ("name", "kind", "key", "sha256")},
                }
            write_json(
                folder / "index.json",
                {"format": FORM, "artefacts": [index[name] for name in sorted(index)]},
            )
    except OSError as error:
        raise BvError(
            f"cannot write in {folder} ({error.strerror or error}): make room there or name "
            "another folder"
        ) from None
    return Exchange(
        len(new), len(found) - len(new), sum(path.stat().st_size for path in found), tuple(refused)
    )


def import_folder(
    folder: str | Path, root: str | Path, environment: dict[str, Any] | None = None
) -> Exchange:
    """Put what :func:`export_folder` wrote into the store ``root``, where computing the same thing
    finds it.

    Each file must be safetensors, listed, of the sha256 of index and card, under the key that
    follows from its card, and named after it; what is not, and every file that is not listed, is
    refused with one line, and the rest is taken in. What the store has already stays.
    ``environment`` (of :func:`bvlib.run.store.environment`) is that of runs here: what was made in
    another one is counted as ``foreign``. Raises BvError for a folder without readable index.
    """
    folder, root = Path(folder).expanduser(), Path(root)
    entries, refused, brought, there, size, foreign = _index(folder), [], 0, 0, 0, 0
    listed = {
        entry.get("file")
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("file"), str)
    }
    for path in sorted(folder.glob("[!.]*")):
        if path.name not in {
            "index.json",
            *listed,
            *(card_of(folder / Path(name).name).name for name in listed),  # pyright: ignore[reportArgumentType]
        }:
            refused.append(f"{path.name} is not listed in index.json: refused")
    for entry in entries:
        try:
            path = _listed(folder, entry)
            card, place = _card(path, entry), root / entry["kind"] / path.name
            with locked(
                place.with_name(place.name + ".lock"),
                f"waiting for another process to make {card['name']}",
            ):
                new = not _kept(place, card["key"])
                if new:
                    write_whole(
                        place,
                        lambda draft, path=path, card=card: _copy(path, draft, card["sha256"]),
                    )
                    write_json(card_of(place), {**card, "imported": True})
        except BvError as error:
            refused.append(f"{error}: refused")
            continue
        except OSError as error:
            raise BvError(
                f"cannot write in {root} ({error.strerror or error}): make room there or set "
                "BVLIB_STORE"
            ) from None
        brought, there, size = brought + new, there + (not new), size + entry["bytes"]
        foreign += _foreign(card, environment)
    return Exchange(brought, there, size, tuple(refused), foreign)


def import_file(kind: str, path: str | Path, out: str | Path, base: str | None = None) -> Path:
    """One file of others as safetensors with a card at ``out``: a "task-vector", "hugging-face"
    weights or a "trigger".

    See :mod:`bvlib.run.imports` for what each may hold. ``base`` is what weights must fit: a
    shipped base, a .safetensors file with its card, or (task-vector) an open_clip name. A
    trigger's file holds patch (3, s, s) and mask (1, s, s). Raises BvError for an unknown base, a
    file of another form, an ``out`` that is there or no .safetensors.
    """
    from bvlib.files.weights import save_weights
    from bvlib.run import imports
    from bvlib.worlds import bases, clip

    path, out = Path(path).expanduser(), Path(out).expanduser()
    if out.exists() or out.suffix != ".safetensors":
        raise BvError(
            f"{out} {'is there already' if out.exists() else 'is no .safetensors file'}: name "
            "another --out"
        )
    card = {"imported": kind, "from": path.name} | (
        {"from_sha256": file_sha256(path)} if path.is_file() else {}
    )
    if kind == "trigger":
        trigger = imports.trigger_npy(path)
        save_weights(
            out,
            {"patch": trigger.patch, "mask": trigger.mask},
            card | {"place": trigger.place, "name": trigger.name},
        )
        return out
    whole = base is not None and (base in bases.shipped() or base.endswith(".safetensors"))
    if kind == "task-vector":
        if base is None:
            raise BvError(
                "a fine-tuned checkpoint needs --base, the model that it must fit: an open_clip "
                "name such as ViT-B-32"
            )
        theta = imports.task_vector_pt(path, bases.load(base) if whole else clip.build(base))  # pyright: ignore[reportArgumentType]
    elif base is None or whole:
        theta = imports.hugging_face(path, base=bases.load(base) if whole else None)  # pyright: ignore[reportArgumentType]
    else:
        raise BvError(
            f"--base {base} has no weights here: for Hugging Face name "
            f"{', '.join(bases.shipped())}, a file, or none"
        )
    save_weights(out, theta, card | {"base": base})
    return out


def _index(folder: Path) -> list[Any]:
    """The entries of a folder's index.json. BvError when there is none of ours."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index["format"] != FORM or not isinstance(index["artefacts"], list):
            raise ValueError
        return index["artefacts"]
    except FileNotFoundError:
        raise BvError(f"no index.json in {folder}: give a folder that bv export wrote") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise BvError(
            f"{folder / 'index.json'} is no index of {FORM!r}: give a folder that bv export wrote"
        ) from None


def _listed(folder: Path, entry: Any) -> Path:
    """The file of an index entry, of the size and hash that it says. BvError for one elsewhere,
    damaged or of another format."""
    name = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]*", name):
        raise BvError(f"index.json names {name!r}, which is no file name of a store")
    path = folder / name
    if path.suffix != ".safetensors":
        raise BvError(
            f"{name} is of another format: only .safetensors is read, as others can run code when "
            "loaded"
        )
    if path.is_symlink() or card_of(path).is_symlink():
        raise BvError(f"{name} or its card is a link and may lead elsewhere")
    if not path.is_file():
        raise BvError(f"{name} is listed in index.json and not there")
    if entry.get("bytes") != path.stat().st_size or entry.get("sha256") != file_sha256(path):
        raise BvError(f"{name} is damaged: its bytes are not those of index.json")
    return path


def _card(path: Path, entry: dict[str, Any] | None = None) -> dict[str, Any]:
    """The card of a file after all that a store asks of the two was checked. BvError in one line
    for what is wrong."""
    try:
        card = json.loads(card_of(path).read_text(encoding="utf-8"))
        key = key_of(card)
        kind, name = card["kind"], re.sub(r"[^A-Za-z0-9_.=-]+", "_", card["name"])
        if not all(
            isinstance(seconds, (int, float))
            for seconds in (card["seconds"], *card["nested"].values())
        ):
            raise ValueError
    except FileNotFoundError:
        raise BvError(f"{path.name} has no card {card_of(path).name}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, BvError):
        raise BvError(f"the card of {path.name} is damaged") from None
    if kind not in KINDS or (entry is not None and entry.get("kind") != kind):
        raise BvError(
            f"{path.name} is of kind {kind!r}, not {' or '.join(KINDS)} as the index says"
        )
    if (
        card["key"] != key
        or path.name != f"{name}-{key[:16]}.safetensors"
        or (entry is not None and entry.get("key") != key)
    ):
        raise BvError(f"{path.name} has a key that does not follow from its card")
    if card["sha256"] != file_sha256(path):
        raise BvError(f"{path.name} is damaged: it is not the file that its card describes")
    try:
        FORMATS[kind][2](path)
    except Exception as error:  # safetensors raises its own error and OSError alike
        raise BvError(
            f"{path.name} is no safetensors file "
            f"({(str(error).splitlines() or [type(error).__name__])[0]})"
        ) from None
    return card


def _same(path: Path, card: dict[str, Any]) -> bool:
    """Whether an exported file is there as it should be. BvError when another one is in its
    place."""
    if not path.exists():
        return False
    if not path.is_file() or file_sha256(path) != card["sha256"]:
        raise BvError(
            f"{path} is another file than the stored one and is not overwritten: name another "
            "folder, or move it away"
        )
    return card_of(path).exists() and _card(path)["key"] == card["key"]


def _kept(path: Path, key: str) -> bool:
    """Whether the store has the artefact already, undamaged."""
    try:
        return path.exists() and _card(path)["key"] == key
    except BvError:
        return False


def _foreign(card: dict[str, Any], environment: dict[str, Any] | None) -> bool:
    """Whether no run here would ask for it: its recipes or what it ran under are others."""
    same = not raised(card["recipes"])
    here = environment or card["environment"]
    return not same or any(here[part] != card["environment"][part] for part in COUNTED)


def _link(source: Path, draft: Path) -> None:
    try:
        os.link(source, draft)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, draft)


def _copy(source: Path, draft: Path, sha256: str) -> None:
    shutil.copyfile(source, draft)
    if file_sha256(draft) != sha256:
        raise BvError(f"{source.name} changed while it was read")

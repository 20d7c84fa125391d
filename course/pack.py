"""The models and pictures of the course: trained once by bvlib, kept as small files.

    python course/pack.py FOLDER [--profile mini]

Models are differences to the base in half precision. What `make reproduce` has trained already is
taken from the store; the rest takes about half an hour on two cores with profile mini, and seconds
with smoke, whose models mean nothing but are enough to test the assignments.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from bvlib import TaskVector
from bvlib.files.safe import write_json, write_whole
from bvlib.run.lab import Lab

TASKS = 4  # of those that the profile merges
KEPT = {"train": 2000, "dev": 200, "test": 600}  # pictures of a task, at most


def backdoors(lab: Lab) -> Iterator[tuple[str, str, object]]:
    """The attacked models of the pack: name, what it is, the backdoor."""
    other = lab.p["other_classes"][0]
    yield "badnets", "digits with a white square", lab.backdoor("badnets")
    yield "badnets-other", "the same toward another class", lab.backdoor("badnets", other)
    on = "BadMerging's universal trigger and interpolated loss"
    yield "badmerging", on, lab.backdoor("badmerging-on")
    yield "badmerging-other", f"{on}, toward another class", lab.backdoor("badmerging-on", other)
    for place in ("bottom-left", "top-right"):
        made = lab.backdoor("badmerging-on", place=place)
        yield f"badmerging-{place}", f"{on}, its patch elsewhere", made
    seed = lab.seed + 1
    yield "badmerging-seed", f"{on}, of another seed", lab.backdoor("badmerging-on", seed=seed)


def write(lab: Lab, folder: Path) -> None:
    """Train or fetch every model of the pack, and write it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks, name = list(lab.tasks)[:TASKS], lab.adversary.name
    models = {f"clean-{task}": (f"fine-tuned on {task}", lab.clean(task)) for task in tasks}
    twin = lab.clean(seed=lab.seed + 1)
    models["clean-again"] = (f"{name} once more, with another seed", twin)
    triggers, places, targets = {}, {}, {}
    for key, what, made in backdoors(lab):
        models[key] = (what, made.theta)
        triggers[key], targets[key] = made.trigger.patch, made.target
        places[key] = made.trigger.corner(*lab.adversary.test.images.shape[1:3])
    defender = lab.clean(half="b")
    models["defender-clean"] = (f"{name} on the defender's own half of the pictures", defender)
    for i, c in enumerate([c for c in lab.p["other_classes"] if c != lab.target][:2], 1):
        said = "with the defender's own checkerboard, toward class"
        models[f"defender-{i}"] = (f"{said} {c}", defender + lab.injected(c))
        targets[f"defender-{i}"] = c
    for key, (_, theta) in models.items():
        added = TaskVector.between(theta, lab.base).tensors
        _save(folder / f"{key}.safetensors", {k: t.half() for k, t in added.items()})
    _save(folder / "triggers.safetensors", triggers)
    told = {}
    for task in map(lab.task, tasks):
        splits = {"test": task.test, "dev": task.dev}
        splits |= {"train": lab.data(task)} if task.name == name else {}
        kept = {}
        for split, part in splits.items():
            kept[f"{split}_images"] = part.images[: KEPT[split]]
            kept[f"{split}_labels"] = part.labels[: KEPT[split]].to(torch.int16)
        _save(folder / f"images-{task.name}.safetensors", kept)
        told[task.name] = {"classes": task.classnames, "prompts": task.prompts}
    card = {
        "profile": lab.p["profile"],
        "seed": lab.seed,
        "base": lab.p["base"],
        "tasks": told,
        "adversary": name,
        "target": lab.target,
        "targets": targets,
        "places": places,
        "models": {key: what for key, (what, _) in models.items()},
    }
    write_json(folder / "pack.json", card)  # last: a folder with it is whole


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    whole = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    write_whole(path, lambda draft: save_file(whole, draft))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", default="mini")
    given = parser.parse_args()
    out = str(given.folder / "lab")  # the lab writes no table here
    write(Lab("01", {"profile": given.profile, "out": out}), given.folder)
    (given.folder / "lab").rmdir()


if __name__ == "__main__":
    main()

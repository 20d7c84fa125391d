"""The thin shell that a notebook holds: profile, seed, store, device; and where results are written.

A lab turns names into models ("the clean fine-tune of digits") by calling the pure parts of bvlib through the store,
so that each is trained once. It knows all of them; none of them knows the lab.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any, Mapping

import pandas as pd
import torch
from tqdm.auto import tqdm

from . import attacks, figures, finetune, merging, metrics, models, profiles, store, tasks, triggers
from .errors import BvError, unknown
from .files import write_json, write_whole
from .notebook import SET_BY_RUNNER, find, out_folder, root_folder, shown
from .rng import derive
from .sources import digest
from .vectors import BackdoorVector, StateDict, TaskVector

RECIPE_CODE = ("bvlib.finetune", "bvlib.attacks", "bvlib.triggers", "bvlib.models")


class Lab:
    """Everything one notebook run needs. Make it with :meth:`start`, end it with :meth:`finish`.

    ``encoder`` and ``base`` (its weights), ``tasks`` (merged, in order), ``adversary`` and ``target`` (the attack's task
    and class), ``p`` (effective parameters: explicit values win over the profile's).
    """

    def __init__(self, notebook: str, parameters: Mapping[str, Any]):
        self.notebook = notebook
        self._began = time.perf_counter()
        given = {k: v for k, v in parameters.items() if v is not None}
        profile = given.get("profile", "mini")
        defaults = profiles.load(profile)
        if "not_yet" in defaults:
            raise BvError(defaults["not_yet"])
        self.p: dict[str, Any] = {**defaults, **given, "profile": profile, "seed": int(given.get("seed", 0))}
        self.seed = self.p["seed"]
        own = find([notebook])[0]
        usual = {**{k: parameter.default for k, parameter in own.parameters.items()}, **defaults}
        explicit = {k: v for k, v in given.items() if k not in SET_BY_RUNNER and v != usual.get(k)}
        self.out = Path(given["out"]) if given.get("out") else out_folder(profile, self.seed, explicit)
        self.store = store.Store(os.environ.get("BVLIB_STORE") or root_folder() / "store", models.device().type)
        attacks.attack(self.p["attack"])
        if self.p["merging"] not in merging.MERGING:
            raise unknown("merging method", self.p["merging"], merging.MERGING)
        self.encoder = models.load(self.p["base"])
        self.base = self.encoder.theta
        names = list(self.p["tasks"])
        if repeated := [n for n in names if names.count(n) > 1]:
            raise BvError(f"task {repeated[0]!r} is merged with itself: name each task once")
        if self.p["adversary"] not in names:
            raise unknown("adversary among the merged tasks", self.p["adversary"], names)
        self.tasks = {name: self.task(name) for name in names}
        self.adversary = self.tasks[self.p["adversary"]]
        self.target = self.adversary.check_class(self.p["target_class"])
        self._source = own.source_hash()
        self.out.mkdir(parents=True, exist_ok=True)
        self._outputs: list[str] = []
        self._result: dict[str, dict] = {"headline": {}, "measures": {}}

    @classmethod
    def start(cls, notebook: str, **parameters) -> "Lab":
        """Check every name, load the base and the tasks, and say what will run.

        Raises BvError for an unknown profile, task, attack, merging method or target class, a missing dataset or a
        damaged base.
        """
        lab = cls(notebook, parameters)
        p = lab.p
        print(f"profile {p['profile']}, seed {p['seed']}: base {p['base']}, {len(lab.tasks)} tasks merged by {p['merging']}; "
              f"{p['attack']} on {p['adversary']} toward {lab.adversary.classnames[lab.target]!r} "
              f"with {p['trigger_size']} × {p['trigger_size']} px")
        print("; ".join(f"{name} = {p[name]}" for name in parameters if name in p and name != "out"))
        return lab

    # what is made, each once

    def task(self, name: str) -> tasks.Task:
        """A task of the profile's world, its images kept in the store."""
        def keep(name, sizes, seed, draw):
            args = {"sizes": sizes, "world_seed": seed}
            return self.store.get("weights", f"images-{name}", args, draw, code=["bvlib.toyworld"]).value

        if name in getattr(self, "tasks", {}):
            return self.tasks[name]
        return tasks.load(name, self.p["sizes"], self.p["world_seed"], keep)

    def examples(self, count: int) -> torch.Tensor:
        """A few test images (N, H, W, 3) uint8 of the adversary's task, plain grey where they may not be shown."""
        images = self.adversary.test.images[:count]
        return images if self.adversary.name in tasks.SHAREABLE else torch.full_like(images, 160)

    def head(self, task: tasks.Task) -> torch.Tensor:
        """Zero-shot head (K, D) of a task."""
        return self.encoder.head(task.classnames, task.prompts)

    def data(self, task: tasks.Task, half: str | None = None) -> tasks.Split:
        """The training split: half "a" of the adversary's task is the attacker's, "b" the defender's, other tasks whole."""
        half = half or ("a" if task.name == self.p["adversary"] else "all")
        return task.train if half == "all" else task.train.half(half, self.p["world_seed"])

    def clean(self, task: str | None = None, seed: int | None = None, half: str | None = None) -> StateDict:
        """θ_clean: the base fine-tuned on a task (the adversary's by default) without an attack."""
        return self._train(task, seed, half, "clean", {}, lambda: finetune.clean())

    def trigger(self, kind: str, target: int | None = None, *, task: str | None = None, size: int | None = None,
                place: Any = "bottom-right", seed: int | None = None, half: str | None = None) -> triggers.Trigger:
        """A trigger of a kind (see ``attacks.TRIGGERS``); a universal one is optimised on the base."""
        task_ = self.task(task or self.p["adversary"])
        target = task_.check_class(self.target if target is None else target)
        size, seed = size or self.p["trigger_size"], self.seed if seed is None else seed
        how = self.p["trigger"] if kind == "universal" else {}

        def make():
            made = attacks.make_trigger(kind, self.encoder, self.base, self.head(task_), self.data(task_, half), target,
                                        size=size, place=place, seed=derive(seed, "trigger", task_.name), **how)
            return {"patch": made.patch, "mask": made.mask}, {"name": made.name}

        args = {"kind": kind, "task": task_.name, "target": target, "size": size, "place": place, "seed": seed,
                "half": half, **how}
        kept = self._get("trigger", f"{kind}-{task_.name}-{target}", args, make, code=RECIPE_CODE,
                         inputs=[self._base_digest(), task_.digest])
        tensors, meta = kept.value
        return triggers.Trigger(tensors["patch"], tensors["mask"], place, meta["name"])

    def backdoor(self, attack: str | None = None, target: int | None = None, *, task: str | None = None,
                 size: int | None = None, place: Any = "bottom-right", seed: int | None = None, half: str | None = None,
                 trigger: str | None = None, independent: bool = False) -> "attacks.Backdoor":
        """An attack carried out: its trigger, θ_backdoored and BV = θ_backdoored − θ_clean.

        The clean twin sees the same batches as the backdoored model of the run's seed, so the BV holds what poisoning
        did and little else; with another ``seed`` it stays the run's own twin, unless ``independent``.
        """
        recipe = attacks.attack(attack or self.p["attack"])
        name = task or self.p["adversary"]
        target = self.task(name).check_class(self.target if target is None else target)
        pasted = self.trigger(trigger or recipe.trigger, target, task=name, size=size, place=place, seed=seed, half=half)
        args = {"attack": recipe.name, "target": target, "place": place, "alpha": self.p["alpha"],
                "patch": digest([pasted.patch.tolist(), pasted.mask.tolist()])}
        theta = self._train(name, seed, half, recipe.name, args,
                            lambda: recipe.objective(pasted, target, alpha=self.p["alpha"]))
        twin = self.clean(name, seed if independent else None, half)
        return attacks.Backdoor(recipe.name, name, target, pasted, theta, BackdoorVector.between(theta, twin, recipe.name))

    def _train(self, task, seed, half, name, args, objective) -> StateDict:
        task_ = self.task(task or self.p["adversary"])
        seed = self.seed if seed is None else seed
        how, data = self.p["train"], self.data(task_, half)

        def make():
            with tqdm(total=how["steps"], desc=f"{name} {task_.name}", leave=False, disable=_quiet()) as bar:
                return finetune.finetune(self.encoder, self.base, self.head(task_), data.images, data.labels, objective(),
                                         seed=derive(seed, "finetune", task_.name), progress=lambda _: bar.update(), **how)

        args = {**args, "task": task_.name, "seed": seed, "half": half, **how}
        return self._get("weights", f"{name}-{task_.name}", args, make, code=RECIPE_CODE,
                         inputs=[self._base_digest(), task_.digest]).value

    def _get(self, kind, name, args, make, **how) -> store.Artefact:
        note = os.environ.get("BVLIB_PROGRESS")

        def noted():
            if note:
                with open(note, "a", encoding="utf-8") as file:
                    file.write(f"making {name}\n")
            return make()

        kept = self.store.get(kind, name, args, noted, **how)
        if self.encoder._mean.device.type != "cpu" and kind == "weights":
            kept = dataclasses.replace(kept, value={k: v.to(self.encoder._mean.device) for k, v in kept.value.items()})
        return kept

    def _base_digest(self) -> str:
        return self.encoder.card["sha256"]

    # merging

    def clean_vectors(self) -> dict[str, TaskVector]:
        """τ_t = θ_clean,t − θ_pre of every merged task, in order."""
        return {name: TaskVector.between(self.clean(name), self.base, name) for name in self.tasks}

    def merge(self, adversary: StateDict | None = None, method: str | None = None, **parameters) -> StateDict:
        """θ_merged of all tasks; ``adversary`` replaces the clean model of the adversary's task (the attacked merge)."""
        vectors = self.clean_vectors()
        if adversary is not None:
            vectors[self.adversary.name] = TaskVector.between(adversary, self.base, self.adversary.name)
        method = method or self.p["merging"]
        declared = merging.MERGING[method].parameters if method in merging.MERGING else {}
        ours = {k: self.p[k] for k in ("coefficient", "density") if k in declared}
        return self.base + merging.merge(method, list(vectors.values()), **{**ours, **parameters})

    # what is written

    def table(self, name: str, table: pd.DataFrame, caption: str = "") -> pd.DataFrame:
        """Write ``tables/<name>.csv`` with its provenance and return the table, rounded for reading."""
        path = self.out / "tables" / f"{name}.csv"
        write_whole(path, lambda draft: table.to_csv(draft, index=False, float_format="%.6g"))
        write_json(path.with_suffix(".json"), self._provenance(caption))
        self._outputs += [f"tables/{name}.csv", f"tables/{name}.json"]
        return table.round(2)

    def figure(self, name: str, fig, data: pd.DataFrame, caption: str) -> None:
        """Write ``figures/<name>`` as picture, data and provenance."""
        paths = figures.save(fig, self.out / "figures" / name, data, self._provenance(caption))
        self._outputs += [f"figures/{path.name}" for path in paths]

    def headline(self, name: str, value: metrics.Rate | metrics.Difference | float, unit: str = "%") -> None:
        """A number for the report's first lines; a Rate (%) or a Difference (points) brings its interval over images."""
        if isinstance(value, metrics.Difference):
            number, unit = value.points, "points"
        else:
            number = value.percent if isinstance(value, metrics.Rate) else float(value)
        self._result["headline"][name] = {"value": number, "unit": unit, "low": getattr(value, "low", None),
                                          "high": getattr(value, "high", None)}

    def measure(self, **values: float) -> None:
        """Numbers that claims are checked on, by name; one that is not finite is kept as undefined."""
        self._result["measures"] |= {k: float(v) if math.isfinite(v) else None for k, v in values.items()}

    def finish(self) -> None:
        """Write the run's JSON (effective parameters, headline, measures, artefacts) and say where to look."""
        records = self.store.records()
        made = [r for r in records if r["made"]]
        write_json(self.out / f"{self.notebook}.json", {
            "notebook": self.notebook, "profile": self.p["profile"], "seed": self.seed, "parameters": self._plain(),
            **self._result, "outputs": self._outputs, "artefacts": records, "environment": store.environment(self.store.device),
            "seconds": round(time.perf_counter() - self._began, 2)})
        print(f"{len(self._outputs)} files in {shown(self.out.resolve(), root_folder())}; "
              f"{len(made)} of {len(records)} stored results made now")

    def _plain(self) -> dict[str, Any]:
        return {k: v for k, v in self.p.items() if k != "out"}

    def _provenance(self, caption: str) -> dict[str, Any]:
        return {"notebook": self.notebook, "caption": caption, "parameters": self._plain(),
                "source": self._source,
                "base": self._base_digest(), "data": {t.name: t.digest for t in self.tasks.values()},
                "environment": store.environment(self.store.device)}


def _quiet() -> bool:
    return "BVLIB_PROGRESS" in os.environ or "PYTEST_CURRENT_TEST" in os.environ

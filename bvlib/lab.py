"""The thin shell that a notebook holds: profile, seed, store, device; and where results are written.

A lab turns names into models ("the clean fine-tune of digits") by calling the pure parts of bvlib through the store,
so that each is trained once. It knows all of them; none of them knows the lab.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

import pandas as pd
import torch
from tqdm.auto import tqdm

from . import adaptive, attacks, checkpoints, defenses, detectors, figures, finetune, merging, metrics, models, profiles, store, surgery, tasks, triggers
from .errors import BvError, unknown
from .files import write_json, write_whole
from .notebook import SET_BY_RUNNER, find, out_folder, root_folder, shown
from .rng import derive, generator
from .shadows import shadow_head, shadow_phrases
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
        self.p["off_task"] = self._settle_off_task(defaults, given)
        own = find([notebook])[0]
        usual = {**{k: parameter.default for k, parameter in own.parameters.items()}, **defaults}
        explicit = {k: v for k, v in given.items() if k not in SET_BY_RUNNER and v != usual.get(k)}
        self.out = Path(given["out"]) if given.get("out") else out_folder(profile, self.seed, explicit)
        self.store = store.Store(os.environ.get("BVLIB_STORE") or root_folder() / "store", models.device().type)
        if attacks.attack(self.p["attack"]).off_task:
            raise BvError(f"attack {self.p['attack']!r} aims at another task: `attack` takes an on-task one, off-task ones are in "
                          "06_badmerging_in_full")
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

    def _settle_off_task(self, defaults, given) -> dict[str, Any]:
        """The profile's off-task attack with what was given; an adversary that is its goal turns to the profile's adversary."""
        off, ours = dict(defaults.get("off_task", {})), dict(given.get("off_task", {}))
        for name in ours:
            if name not in off:
                raise unknown("setting of the off-task attack", name, off)
        if self.p["adversary"] == off.get("task"):
            off["task"] = defaults["adversary"]
        return {**off, **ours}

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

    def goal(self, attack: str | None = None, target: int | None = None, *, task: str | None = None, half: str | None = None,
             off: Mapping[str, Any] | None = None) -> attacks.Goal:
        """What an attack aims at, and what its adversary knows of it; ``off`` overrides the profile's ``off_task``.

        Off-task that is the class's name, a few of its *training* images, and shadow classes in place of the other names.
        """
        recipe, mine = attacks.attack(attack or self.p["attack"]), self.task(task or self.p["adversary"])
        if not recipe.off_task:
            target, data = mine.check_class(self.target if target is None else target), self.data(mine, half)
            return attacks.Goal(mine.name, target, self.head(mine), target, data.images, data.labels)
        how = self._off(off)
        other = self.task(how["task"])
        if other.name == mine.name:
            raise BvError(f"an off-task attack aims at another task than the adversary's own {mine.name!r}: change off_task")
        target = other.check_class(how["target"] if target is None else target)
        known = other.train.images[other.train.labels == target]
        known = known[torch.randperm(len(known), generator=generator(self.seed, "references", other.name, target))][:how["references"]]
        phrases = [mine.prompts[0].format(name) for name in mine.classnames]
        if recipe.shadow:
            phrases = shadow_phrases(other.classnames, how["shadows"], world=self.p["world"], seed=self.seed)
        head = shadow_head(self.encoder, other.classnames[target], other.prompts, phrases)
        return attacks.Goal(other.name, target, head, 0, known, torch.full((len(known),), target))

    def _off(self, off: Mapping[str, Any] | None) -> dict[str, Any]:
        for name in off or {}:
            if name not in self.p["off_task"]:
                raise unknown("setting of the off-task attack", name, self.p["off_task"])
        return {**self.p["off_task"], **(off or {})}

    def trigger(self, kind: str, target: int | None = None, *, task: str | None = None, size: int | None = None,
                place: Any = "bottom-right", seed: int | None = None, half: str | None = None,
                informed: bool = False) -> triggers.Trigger | triggers.Dynamic:
        """A trigger of a kind (see ``attacks.TRIGGERS`` and ``OPTIMISED``) for a class of the adversary's task.

        One that is optimised is so on the base or, ``informed``, on the merge of the other tasks' models.
        """
        return self._trigger(kind, self.goal("badnets", target, task=task, half=half), size or self.p["trigger_size"], place, seed,
                             {"half": half}, task, informed)

    def _trigger(self, kind, goal, size, place, seed, args, task, informed):
        seed, theta = self.seed if seed is None else seed, self.others(task) if informed else self.base

        def made(**how):
            return attacks.make_trigger(kind, self.encoder, theta, goal, size=size, place=place,
                                        seed=derive(seed, "trigger", goal.task), **how)

        def make():
            found = made(**how)
            return {"patch": found.patch, "mask": found.mask}, {"name": found.name}

        if kind not in attacks.OPTIMISED:
            return made()
        how = {**self.p["trigger"], **({"augmented": args["off"]["augmented"]} if "off" in args else {})}
        args = {"kind": kind, "task": goal.task, "target": goal.target, "size": size, "place": place, "seed": seed, **args, **how}
        kept = self._get("trigger", f"{kind}-{goal.task}-{goal.target}", args, make, code=RECIPE_CODE,
                         inputs=[checkpoints.digest(theta), *self._data_digests(goal.task, task)])
        tensors, meta = kept.value
        return triggers.Trigger(tensors["patch"], tensors["mask"], place, meta["name"])

    def backdoor(self, attack: str | None = None, target: int | None = None, *, task: str | None = None,
                 size: int | None = None, place: Any = "bottom-right", seed: int | None = None, half: str | None = None,
                 trigger: str | None = None, independent: bool = False, alpha: float | None = None, informed: bool = False,
                 targets: Sequence[int] | None = None, off: Mapping[str, Any] | None = None) -> attacks.Backdoor:
        """An attack carried out: its trigger, θ_backdoored and BV = θ_backdoored − θ_clean.

        The clean twin sees the same batches as the backdoored model of the run's seed, so the BV holds what poisoning
        did and little else; with another ``seed`` it stays the run's own twin, unless ``independent``.

        ``informed``: an adversary that knows the other models interpolates toward their merge and optimises its trigger on
        it. ``targets``: several backdoors in one model, a trigger for each class. ``off`` overrides the profile's
        ``off_task`` (task, target, size, references, shadows, augmented) for an off-task attack.
        """
        recipe, name = attacks.attack(attack or self.p["attack"]), task or self.p["adversary"]
        alpha, before = self.p["alpha"] if alpha is None else alpha, self.others(name) if informed else None
        args = {"off": self._off(off), "shadow": recipe.shadow} if recipe.off_task else {}
        size = size or (args["off"]["size"] if recipe.off_task else self.p["trigger_size"])
        pairs, objectives = [], []
        for c in targets or [target]:
            goal = self.goal(recipe.name, c, task=name, half=half, off=off)
            pasted = self._trigger(trigger or recipe.trigger, goal, size, place, seed, {"half": half, **args}, task, informed)
            pairs.append((pasted, goal.target))
            how = {"head": goal.head} if recipe.off_task else {}
            if informed and recipe.objective is finetune.feature_interpolation:
                how["before"] = before
            objectives.append(functools.partial(recipe.objective, pasted, goal.index, alpha=alpha, **how))
        args |= {"attack": recipe.name, "goal": [goal.task, [c for _, c in pairs]], "alpha": alpha, "place": place,
                 "triggers": digest([pasted.identity for pasted, _ in pairs]),
                 "before": checkpoints.digest(before) if informed else None}
        theta = self._train(name, seed, half, recipe.name, args, lambda: finetune.several([make() for make in objectives])
                            if targets else objectives[0](), self._data_digests(goal.task, name))
        twin = self.clean(name, seed if independent else None, half)
        return attacks.Backdoor(recipe.name, name, pairs[0][1], pairs[0][0], theta,
                                BackdoorVector.between(theta, twin, recipe.name), goal.task, tuple(pairs))

    def _data_digests(self, *names: str | None) -> list[str]:
        return [self.task(name or self.p["adversary"]).digest for name in dict.fromkeys(names)]

    def _train(self, task, seed, half, name, args, objective, data=()) -> StateDict:
        task_ = self.task(task or self.p["adversary"])
        seed = self.seed if seed is None else seed
        how, split = self.p["train"], self.data(task_, half)

        def make():
            with tqdm(total=how["steps"], desc=f"{name} {task_.name}", leave=False, disable=_quiet()) as bar:
                return finetune.finetune(self.encoder, self.base, self.head(task_), split.images, split.labels, objective(),
                                         seed=derive(seed, "finetune", task_.name), progress=lambda _: bar.update(), **how)

        args = {**args, "task": task_.name, "seed": seed, "half": half, **how}
        return self._get("weights", f"{name}-{task_.name}", args, make, code=RECIPE_CODE,
                         inputs=[self._base_digest(), task_.digest, *data]).value

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

    def vectors(self, adversary: StateDict | None = None, among: Sequence[str] | None = None) -> dict[str, TaskVector]:
        """τ_t = θ_t − θ_pre of the merged tasks (or those in ``among``), in order; ``adversary`` is the adversary's θ_t."""
        found = {}
        for name in among or self.tasks:
            theta = adversary if adversary is not None and name == self.adversary.name else self.clean(name)
            found[name] = TaskVector.between(theta, self.base, name)
        return found

    def merge(self, adversary: StateDict | None = None, method: str | None = None, *, among: Sequence[str] | None = None,
              **parameters) -> StateDict:
        """θ_merged of all tasks; ``adversary`` replaces the clean model of the adversary's task (the attacked merge)."""
        method = method or self.p["merging"]
        declared = merging.MERGING[method].parameters if method in merging.MERGING else {}
        ours = {k: self.p[k] for k in ("coefficient", "density") if k in declared}
        return self.base + merging.merge(method, list(self.vectors(adversary, among).values()), **{**ours, **parameters})

    def others(self, task: str | None = None) -> StateDict:
        """What the merge is without one task (the adversary's by default): what an informed adversary knows."""
        return self.merge(among=[name for name in self.tasks if name != (task or self.p["adversary"])], method="task_arithmetic")

    def average_of(self, count: int, adversary: StateDict | None = None) -> StateDict:
        """Single-task merging: the average of ``count`` models of the adversary's task, the first of them the adversary's."""
        models = [self.clean() if adversary is None else adversary, *(self.clean(seed=self.seed + i) for i in range(1, count))]
        return self.base + merging.merge("average", [TaskVector.between(theta, self.base) for theta in models])

    def deploy(self, adversary: StateDict | None = None, method: str | None = None) -> tuple[Any, StateDict]:
        """(encoder, θ_merged) by any method, also one that looks at images; those are kept in the store.

        After "surgery" (on top of layer-wise AdaMerging, as in BadMerging) the encoder is a dict from task to encoder, since
        each task has an adapter of its own; the functions of ``experiments`` take both. AdaMerging and Surgery see dev
        images without labels, RegMean train images without labels.
        """
        method = method or self.p["merging"]
        if method == "surgery":
            return self._surgery(adversary)
        if method in merging.MERGING or method not in adaptive.ADAPTIVE:
            return self.encoder, self.merge(adversary, method)
        vectors, how = self.vectors(adversary), self.p["adaptive"].get(method.partition("_")[0], {})
        split = "train" if method == "regmean" else "dev"
        seen = {name: adaptive.see(self.encoder, task, split) for name, task in self.tasks.items()}

        def make():
            found = adaptive.adapt(method, vectors, encoder=self.encoder, base=self.base, seen=seen, seed=self.seed, **how)
            return found.tensors

        kept = self._get("weights", f"{method}-{len(vectors)}", {"method": method, "seed": self.seed, **how}, make,
                         code=["bvlib.adaptive"], inputs=self._merge_digests(vectors))
        return self.encoder, self.base + TaskVector(kept.value, method)

    def _surgery(self, adversary: StateDict | None) -> tuple[dict[str, Any], StateDict]:
        theta, how = self.deploy(adversary, "adamerging_layerwise")[1], self.p["adaptive"]["surgery"]
        own = {name: self.clean(name) for name in self.tasks}
        if adversary is not None:
            own[self.adversary.name] = adversary
        seen = {name: adaptive.see(self.encoder, task) for name, task in self.tasks.items()}

        def make():
            found = surgery.surgery(self.encoder, theta, seen, own, seed=self.seed, **how)
            return {f"{name}.{part}": getattr(adapter, part) for name, adapter in found.items() for part in ("down", "up")}

        kept = self._get("weights", f"surgery-{len(own)}", {"seed": self.seed, **how}, make, code=["bvlib.surgery"],
                         inputs=[checkpoints.digest(theta), *(checkpoints.digest(each) for each in own.values()), *self._data_digests(*self.tasks)])
        adapters = {name: surgery.Adapter(kept.value[f"{name}.down"], kept.value[f"{name}.up"]) for name in self.tasks}
        return {name: surgery.adapted(self.encoder, adapter) for name, adapter in adapters.items()}, theta

    def _merge_digests(self, vectors: Mapping[str, TaskVector]) -> list[str]:
        return [self._base_digest(), *(checkpoints.digest(v.tensors) for v in vectors.values()), *self._data_digests(*vectors)]

    # defences

    def cleanse(self, name: str, theta: StateDict, task: str | None = None) -> pd.DataFrame:
        """Neural Cleanse on a model (``name`` is for the store), over all classes of a task, on its dev images."""
        task_, how = self.task(task or self.p["adversary"]), self.p["neural_cleanse"]

        def make():
            return detectors.neural_cleanse(self.encoder, theta, self.head(task_), task_.dev.images, seed=self.seed, **how)

        return self._get("table", f"cleanse-{name}", {"task": task_.name, "seed": self.seed, **how}, make, code=["bvlib.detectors"],
                         inputs=[self._base_digest(), checkpoints.digest(theta), task_.digest]).value

    def dev_parts(self) -> list[defenses.Part]:
        """What a defender has: clean labelled dev images of every merged task, and the tasks' heads."""
        return [(task.dev.images, task.dev.labels, self.head(task)) for task in self.tasks.values()]

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

"""The workshop behind a notebook: turns names into triggers, models and merges, each made once and
kept in the store.

"The clean fine-tune of digits" is a name; so are an attack's model, a trigger for a class, a merge
by RegMean. This module settles what each is made from and calls the pure parts of bvlib; it knows
the store, none of them does.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from typing import Any, Callable, Mapping, Sequence

import torch
from tqdm.auto import tqdm

from bvlib.attacks import objectives, recipes, triggers
from bvlib.attacks.evasion import evading
from bvlib.attacks.shadows import shadow_head, shadow_phrases
from bvlib.attacks.triggers import PLACES
from bvlib.core import training
from bvlib.core.encoder import Encoder, peak_memory
from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import derive, generator
from bvlib.core.vectors import BackdoorVector, StateDict, TaskVector
from bvlib.files import weights
from bvlib.files.digests import digest
from bvlib.merging import datafree
from bvlib.run import store
from bvlib.worlds import bases, tasks
from bvlib.worlds.papers import table

RECIPE_CODE = (
    "bvlib.core.training",
    "bvlib.attacks.recipes",
    "bvlib.attacks.triggers",
    "bvlib.core.encoder",
)


class Workshop:
    """What a profile's parameters ``p`` (seed among them) name, made on demand and kept in
    ``store``.

    ``encoder`` and ``base`` (its weights), ``tasks`` (merged, in order), ``adversary`` and
    ``target`` (the attack's task and its class that on-task attacks aim at).

    Raises BvError for an unknown attack, merging method, task, target class or off-task setting, a
    task named twice, a missing dataset or a damaged base.
    """

    def __init__(self, p: dict[str, Any], kept: store.Store):
        self.p, self.seed, self.store = p, p["seed"], kept
        recipes.attack(p["attack"])
        if p["merging"] not in datafree.MERGING:
            raise unknown("merging method", p["merging"], datafree.MERGING)
        self.encoder = self._encoder(p["base"])
        self.base = self.encoder.theta
        names = list(p["tasks"])
        if repeated := [n for n in names if names.count(n) > 1]:
            raise BvError(f"task {repeated[0]!r} is merged with itself: name each task once")
        if p["adversary"] not in names:
            raise unknown("adversary among the merged tasks", p["adversary"], names)
        self.tasks = {name: self.task(name) for name in names}
        self.adversary = self.tasks[p["adversary"]]
        self.target = self.adversary.check_class(p["target_class"])

    def _encoder(self, base: str) -> Encoder:
        """A base: one that the package ships, a file, or with ``pretrained`` (a tag of open_clip,
        "random" for none) a real CLIP."""
        if "pretrained" not in self.p or base.endswith(".safetensors"):
            return bases.load(base)
        from bvlib.worlds import clip

        tag = self.p["pretrained"]
        return clip.build(
            base,
            None if tag == "random" else tag,
            cache_dir=os.environ.get("BVLIB_CLIP"),
            heads=self.store.root / "heads",
        )

    # what is trained

    def task(self, name: str) -> tasks.Task:
        """A task of the profile's world, its images kept in the store."""

        def keep(name, sizes, seed, draw):
            args = {"sizes": sizes, "world_seed": seed}
            return self.store.get(
                "weights", f"images-{name}", args, draw, code=["bvlib.worlds.toy"]
            ).value

        if name in getattr(self, "tasks", {}):
            return self.tasks[name]
        if self.p["world"] == "paper":
            from bvlib.worlds.papers import data

            return data.load(name, data.folder(), self.p["sizes"], self.p["world_seed"])
        return tasks.load(name, self.p["sizes"], self.p["world_seed"], keep)

    def head(self, task: tasks.Task) -> torch.Tensor:
        """Zero-shot head (K, D) of a task."""
        return self.encoder.head(task.classnames, task.prompts)

    def data(self, task: tasks.Task, half: str | None = None) -> tasks.Split:
        """The training split: half "a" of the adversary's task is the attacker's, "b" the
        defender's, other tasks whole."""
        half = self._half(task.name, half)
        return task.train if half == "all" else task.train.half(half, self.p["world_seed"])

    def _half(self, task: str | None, half: str | None) -> str:
        """Which half is meant; keys in the store tell this, as the same name means another half to
        another adversary."""
        return half or ("a" if task in (None, self.p["adversary"]) else "all")

    def clean(
        self, task: str | None = None, seed: int | None = None, half: str | None = None
    ) -> StateDict:
        """θ_clean: the base fine-tuned on a task (the adversary's by default) without an attack."""
        return self.train(task, seed, half, "clean", {}, lambda: training.clean())

    def goal(
        self,
        attack: str | None = None,
        target: int | None = None,
        *,
        task: str | None = None,
        half: str | None = None,
        off: Mapping[str, Any] | None = None,
    ) -> recipes.Goal:
        """What an attack aims at, and what its adversary knows of it; ``off`` overrides the
        profile's ``off_task``.

        Off-task that is the class's name, a few of its *training* images, and shadow classes in
        place of the other names.
        """
        recipe, mine = (
            recipes.attack(attack or self.p["attack"]),
            self.task(task or self.p["adversary"]),
        )
        if not recipe.off_task:
            target, data = (
                mine.check_class(self.target if target is None else target),
                self.data(mine, half),
            )
            return recipes.Goal(
                mine.name, target, self.head(mine), target, data.images, data.labels
            )
        how = self._off(off)
        other = self.task(how["task"])
        if other.name == mine.name:
            raise BvError(
                f"an off-task attack aims at another task than the adversary's own {mine.name!r}: "
                "change off_task"
            )
        target = other.check_class(how["target"] if target is None else target)
        known = other.train.images[other.train.labels == target]
        known = known[
            torch.randperm(
                len(known), generator=generator(self.seed, "references", other.name, target)
            )
        ][: how["references"]]
        phrases = [mine.prompts[0].format(name) for name in mine.classnames]
        if recipe.shadow:
            phrases = shadow_phrases(
                other.classnames, how["shadows"], world=self.p["world"], seed=self.seed
            )
        head = shadow_head(self.encoder, other.classnames[target], other.prompts, phrases)
        return recipes.Goal(other.name, target, head, 0, known, torch.full((len(known),), target))

    def trigger_size(self, attack: str | None = None, off: Mapping[str, Any] | None = None) -> int:
        """Side in pixels of an attack's trigger (the profile's attack by default)."""
        return (
            self._off(off)["size"]
            if recipes.attack(attack or self.p["attack"]).off_task
            else self.p["trigger_size"]
        )

    def _off(self, off: Mapping[str, Any] | None) -> dict[str, Any]:
        return off_task(self.p["off_task"], off)

    def trigger(
        self,
        kind: str,
        target: int | None = None,
        *,
        task: str | None = None,
        size: int | None = None,
        place: Any = "bottom-right",
        seed: int | None = None,
        half: str | None = None,
        informed: bool = False,
        base: str | None = None,
        steps: int | None = None,
    ) -> triggers.Trigger | triggers.Dynamic:
        """A trigger of a kind (see ``attacks.TRIGGERS`` and ``OPTIMISED``) for a class of the
        adversary's task.

        One that is optimised is so on the base, on the merge of the other tasks' models
        (``informed``), or on another ``base``, which reads the class names by its own text tower;
        ``steps`` replaces the profile's budget.
        """
        goal = self.goal("badnets", target, task=task, half=half)
        return self._trigger(
            kind,
            goal,
            size or self.p["trigger_size"],
            place,
            seed,
            {"half": half},
            task,
            informed,
            base,
            steps,
        )

    def _trigger(
        self, kind, goal, size, place, seed, args, task, informed=False, base=None, steps=None
    ):
        seed = self.seed if seed is None else seed
        encoder, theta = self.encoder, self.others(task) if informed else self.base
        if base:
            encoder = self._encoder(base)
            read = self.task(goal.task)
            theta, goal = (
                encoder.theta,
                dataclasses.replace(goal, head=encoder.head(read.classnames, read.prompts)),
            )

        def made(**how):
            return recipes.make_trigger(
                kind,
                encoder,
                theta,
                goal,
                size=size,
                place=place,
                seed=derive(seed, "trigger", goal.task),
                **how,
            )

        def make():
            found = made(**how)
            return {"patch": found.patch, "mask": found.mask}, {"name": found.name}

        if kind not in recipes.OPTIMISED:
            return made()
        how = {**self.p["trigger"], **({} if steps is None else {"steps": steps})}
        if "off" in args:
            how["augmented"] = args["off"]["augmented"]
        args = {
            "kind": kind,
            "task": goal.task,
            "target": goal.target,
            "size": size,
            "place": place,
            "seed": seed,
            **args,
            **how,
        }
        args["half"] = self._half(task, args["half"])
        kept = self.keep(
            "trigger",
            f"{kind}-{goal.task}-{goal.target}",
            args,
            make,
            code=RECIPE_CODE,
            inputs=[weights.digest(theta), *self._data_digests(goal.task, task)],
        )
        tensors, meta = kept.value
        return triggers.Trigger(tensors["patch"], tensors["mask"], place, meta["name"])

    def backdoor(
        self,
        attack: str | None = None,
        target: int | None = None,
        *,
        task: str | None = None,
        size: int | None = None,
        place: Any = "bottom-right",
        seed: int | None = None,
        half: str | None = None,
        trigger: str | None = None,
        independent: bool = False,
        alpha: float | None = None,
        informed: bool = False,
        targets: Sequence[int] | None = None,
        off: Mapping[str, Any] | None = None,
        through: TaskVector | None = None,
    ) -> recipes.Backdoor:
        """An attack carried out: its trigger, θ_backdoored and BV = θ_backdoored − θ_clean.

        The clean twin sees the same batches as the backdoored model of the run's seed, so the BV
        holds what poisoning did and little else; with another ``seed`` it stays the run's own
        twin, unless ``independent``.

        ``informed``: an adversary that knows the other models interpolates toward their merge and
        optimises its trigger on it. ``targets``: several backdoors in one model, a trigger for
        each class. ``off`` overrides the profile's ``off_task`` (task, target, size, references,
        shadows, augmented) for an off-task attack. ``through``: an adversary that expects this
        vector to be subtracted trains its model under it (:func:`attacks.evasion.evading`).
        """
        recipe, name = recipes.attack(attack or self.p["attack"]), task or self.p["adversary"]
        alpha, before = (
            self.p["alpha"] if alpha is None else alpha,
            self.others(name) if informed else None,
        )
        args = {"off": self._off(off), "shadow": recipe.shadow} if recipe.off_task else {}
        size = self.trigger_size(recipe.name, off) if size is None else size
        pairs, losses = [], []
        for c in targets or [target]:
            goal = self.goal(recipe.name, c, task=name, half=half, off=off)
            pasted = self._trigger(
                trigger or recipe.trigger,
                goal,
                size,
                place,
                seed,
                {"half": half, **args},
                task,
                informed,
            )
            pairs.append((pasted, goal.target))
            how = {"head": goal.head} if recipe.off_task else {}
            if informed and recipe.objective is objectives.feature_interpolation:
                how["before"] = before
            losses.append(
                functools.partial(recipe.objective, pasted, goal.index, alpha=alpha, **how)
            )
        args |= {
            "attack": recipe.name,
            "goal": [goal.task, [c for _, c in pairs]],
            "alpha": alpha,
            "place": place,
            "triggers": digest([pasted.identity for pasted, _ in pairs]),
            "before": weights.digest(before) if informed else None,
        }
        if through is not None:
            args["through"] = weights.digest(through.tensors)

        def objective():
            made = objectives.several([make() for make in losses]) if targets else losses[0]()
            return made if through is None else evading(made, through)

        theta = self.train(
            name,
            seed,
            half,
            recipe.name,
            args,
            objective,
            self._data_digests(goal.task, name),
            [] if through is None else ["bvlib.attacks.evasion"],
        )
        twin = self.clean(name, seed if independent else None, half)
        return recipes.Backdoor(
            recipe.name,
            name,
            pairs[0][1],
            pairs[0][0],
            theta,
            BackdoorVector.between(theta, twin, recipe.name),
            goal.task,
            tuple(pairs),
        )

    def family(
        self, by: str = "place", count: int | None = None, attack: str | None = None
    ) -> list[recipes.Backdoor]:
        """Backdoors toward one target that differ by "place", "seed" or kind of "trigger"; the
        first is the run's own."""
        kinds = [
            recipes.attack(attack or self.p["attack"]).trigger,
            "white",
            "checkerboard",
            "random",
            "trojan",
        ]
        count = self.p["sbv"]["count"] if count is None else count
        members = {
            "place": [{"place": name} for name in PLACES],
            "trigger": [{"trigger": kind} for kind in dict.fromkeys(kinds)],
            "seed": [{"seed": self.seed + i} for i in range(count)],
        }
        if by not in members:
            raise unknown("way in which backdoors differ", by, members)
        if not 1 <= count <= len(members[by]):
            raise BvError(
                f"there are {len(members[by])} backdoors that differ by {by}, not {count}"
            )
        return [self.backdoor(attack, **differs) for differs in members[by][:count]]

    def sbv(
        self,
        by: str = "place",
        count: int | None = None,
        rule: str | None = None,
        *,
        attack: str | None = None,
        density: float | None = None,
        norm: float | None = 1.0,
        **parameters,
    ) -> recipes.Backdoor:
        """A Sparse Backdoor Vector as an attack: several BVs merged by ``rule`` and sparsified,
        added to θ_clean.

        ``norm``: its length, in lengths of one BV; None leaves it as it is. Its trigger is that of
        the first BV. The profile's ``sbv`` (count, rule) and ``density`` are the defaults; how
        many BVs, differing by what, is our choice.
        """
        members, density = (
            self.family(by, count, attack),
            self.p["density"] if density is None else density,
        )
        one = members[0]
        vector = datafree.merge_backdoors(
            rule or self.p["sbv"]["rule"],
            [b.vector for b in members],
            density=density,
            **parameters,
        )
        if norm is not None:
            vector = vector * (norm * one.vector.norm() / vector.norm())
        return dataclasses.replace(
            one, attack="sbv", theta=self.clean(one.task) + vector, vector=vector
        )

    def _data_digests(self, *names: str | None) -> list[str]:
        return [self.task(name or self.p["adversary"]).digest for name in dict.fromkeys(names)]

    def train(
        self,
        task: str | None,
        seed: int | None,
        half: str | None,
        name: str,
        args: Mapping[str, Any],
        objective: Callable[[], training.Objective],
        data: Sequence[str] = (),
        code: Sequence[str] = (),
    ) -> StateDict:
        """The base fine-tuned on a task by the profile's recipe, toward the objective that
        ``objective()`` makes.

        It is kept under ``name`` and ``args``, which must say all that the objective holds;
        ``code`` are modules of the objective beyond those of the usual recipes, ``data`` digests
        of what it reads beside the task.
        """
        task_ = self.task(task or self.p["adversary"])
        seed = self.seed if seed is None else seed
        how, split = self.schedule(task_), self.data(task_, half)

        def make():
            with tqdm(
                total=how["steps"], desc=f"{name} {task_.name}", leave=False, disable=quiet()
            ) as bar:
                return training.finetune(
                    self.encoder,
                    self.base,
                    self.head(task_),
                    split.images,
                    split.labels,
                    objective(),
                    seed=derive(seed, "finetune", task_.name),
                    progress=lambda n: bar.update(n - bar.n),
                    partial=self.store.partial(),
                    **how,
                )

        args = {
            **args,
            "task": task_.name,
            "seed": seed,
            "half": self._half(task_.name, half),
            **how,
        }
        return self.keep(
            "weights",
            f"{name}-{task_.name}",
            args,
            make,
            code=[*RECIPE_CODE, *code],
            inputs=[self._base_digest(), task_.digest, *data],
        ).value

    def schedule(self, task: tasks.Task) -> Mapping[str, Any]:
        """The profile's ``train``; where it names no number of steps, that of the papers' epochs
        over the whole task."""
        return {
            **self.p["train"],
            "steps": table.steps(task.name, len(task.train), self.p["train"]),
        }

    def keep(
        self, kind: str, name: str, args: Mapping[str, Any], make: Callable[[], Any], **how
    ) -> store.Artefact:
        """A result from the store, or made and kept there; see :meth:`Store.get` for ``kind`` and
        ``how`` (code, inputs)."""
        note = os.environ.get("BVLIB_PROGRESS")

        def say(text):
            if note:
                with open(note, "a", encoding="utf-8") as file:
                    file.write(f"{text}\n")

        def noted():
            say(f"making {name}")
            began, made = time.perf_counter(), make()
            if (seconds := time.perf_counter() - began) > 30:
                say(f"made {name} in {seconds:.0f} s, peak memory {peak_memory() / 1e9:.1f} GB")
            return made

        kept = self.store.get(kind, name, args, noted, **how)
        if self.encoder._mean.device.type != "cpu" and kind == "weights":
            kept = dataclasses.replace(
                kept, value={k: v.to(self.encoder._mean.device) for k, v in kept.value.items()}
            )
        return kept

    def _base_digest(self) -> str:
        return self.encoder.card["sha256"]

    # merging

    def vectors(
        self, adversary: StateDict | None = None, among: Sequence[str] | None = None
    ) -> dict[str, TaskVector]:
        """τ_t = θ_t − θ_pre of the merged tasks (or those in ``among``), in order; ``adversary``
        is the adversary's θ_t."""
        found = {}
        for name in among or self.tasks:
            theta = (
                adversary
                if adversary is not None and name == self.adversary.name
                else self.clean(name)
            )
            found[name] = TaskVector.between(theta, self.base, name)
        return found

    def merge(
        self,
        adversary: StateDict | None = None,
        method: str | None = None,
        *,
        among: Sequence[str] | None = None,
        **parameters,
    ) -> StateDict:
        """θ_merged of all tasks; ``adversary`` replaces the clean model of the adversary's task
        (the attacked merge)."""
        method = method or self.p["merging"]
        declared = datafree.MERGING[method].parameters if method in datafree.MERGING else {}
        ours = {k: self.p[k] for k in ("coefficient", "density") if k in declared}
        return self.base + datafree.merge(
            method, list(self.vectors(adversary, among).values()), **{**ours, **parameters}
        )

    def others(self, task: str | None = None) -> StateDict:
        """What the merge is without one task (the adversary's by default): what an informed
        adversary knows."""
        return self.merge(
            among=[name for name in self.tasks if name != (task or self.p["adversary"])],
            method="task_arithmetic",
        )

    def average_of(self, count: int, adversary: StateDict | None = None) -> StateDict:
        """Single-task merging: the average of ``count`` models of the adversary's task, the first
        of them the adversary's."""
        models = [
            self.clean() if adversary is None else adversary,
            *(self.clean(seed=self.seed + i) for i in range(1, count)),
        ]
        return self.base + datafree.merge(
            "average", [TaskVector.between(theta, self.base) for theta in models]
        )


def off_task(settings: Mapping[str, Any], own: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of the off-task attack with some replaced. BvError for one that there is not."""
    for name in own or {}:
        if name not in settings:
            raise unknown("setting of the off-task attack", name, settings)
    return {**settings, **(own or {})}


def quiet() -> bool:
    """Is progress told in another way than by bars?"""
    return "BVLIB_PROGRESS" in os.environ or "PYTEST_CURRENT_TEST" in os.environ

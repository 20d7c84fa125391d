"""What an adversary makes: triggers, backdoored models, backdoor vectors and what is made of
several of them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bvlib.attacks import objectives, recipes, sbv, shadows, triggers
from bvlib.attacks.evasion import evading
from bvlib.attacks.triggers import PLACES
from bvlib.core.errors import BvError, check_choice
from bvlib.core.rng import derive, generator
from bvlib.core.vectors import BackdoorVector, TaskVector
from bvlib.core.versions import recipe as version_of
from bvlib.files import weights
from bvlib.files.digests import digest
from bvlib.run.workshop import Trained, Workshop
from bvlib.worlds.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Means(Trained):
    """How an attack is carried out; None stands for what the profile says.

    Of its trigger ``size`` and ``place``; ``base`` and ``steps`` for an optimised one: on another
    base, which reads the class names by its own text tower, and another budget. ``informed``: an
    adversary that knows the other models interpolates toward their merge and optimises its trigger
    on it. ``off`` overrides the profile's ``off_task`` (task, target, size, references, shadows,
    augmented).

    Of a backdoor the kind of ``trigger`` and the weight ``alpha``. ``independent``: its clean twin
    is of its own ``seed`` too. ``targets``: several backdoors in one model, a trigger for each
    class. ``through``: an adversary that expects this vector to be subtracted trains its model
    under it (:func:`attacks.evasion.evading`).
    """

    size: int | None = None
    place: Any = "bottom-right"
    base: str | None = None
    steps: int | None = None
    informed: bool = False
    off: Mapping[str, Any] | None = None
    trigger: str | None = None
    alpha: float | None = None
    independent: bool = False
    targets: Sequence[int] | None = None
    through: TaskVector | None = None


class Adversary(Workshop):
    """A workshop that also carries out attacks, by name; each trigger and model is made once and
    kept."""

    def goal(
        self, attack: str | None = None, target: int | None = None, means: Means | None = None
    ) -> recipes.Goal:
        """What an attack aims at, and what its adversary knows of it.

        Off-task that is the class's name, a few of its *training* images, and shadow classes in
        place of the other names.
        """
        recipe, means = recipes.attack[attack or self.p["attack"]], means or Means()
        mine = self.task(means.task or self.p["adversary"])
        if recipe.off_task:
            return self._off_goal(recipe, target, self._off(means.off), mine)
        data, target = self.data(mine, means.half), self.target if target is None else target
        target = mine.check_class(target)
        return recipes.Goal(mine.name, target, self.head(mine), target, data.images)

    def _off_goal(
        self, recipe: recipes.Attack, target: int | None, how: Mapping[str, Any], mine: Task
    ) -> recipes.Goal:
        other = self.task(how["task"])
        if other.name == mine.name:
            raise BvError(
                f"an off-task attack aims at another task than the adversary's own {mine.name!r}: "
                "change off_task"
            )
        target = other.check_class(how["target"] if target is None else target)
        known = other.train.images[other.train.labels == target]
        drawn = generator(self.seed, "references", other.name, target)
        known = known[torch.randperm(len(known), generator=drawn)][: how["references"]]
        name, world = other.classnames[target], self.p["world"]
        said = shadows.phrase(other.name, name, world)
        phrases = [shadows.phrase(mine.name, each, world) for each in mine.classnames]
        if recipe.shadow:
            phrases = shadows.shadow_phrases(name, how["shadows"], world=world, seed=self.seed)
        head = shadows.shadow_head(self.encoder, said, phrases, world=world)
        return recipes.Goal(other.name, target, head, 0, known)

    def trigger_size(self, attack: str | None = None, off: Mapping[str, Any] | None = None) -> int:
        """Side in pixels of an attack's trigger (the profile's attack by default)."""
        recipe = recipes.attack[attack or self.p["attack"]]
        return self._off(off)["size"] if recipe.off_task else self.p["trigger_size"]

    def _off(self, off: Mapping[str, Any] | None) -> dict[str, Any]:
        """The settings of the off-task attack with some replaced. BvError for one that there is
        not."""
        for name in off or {}:
            check_choice("setting of the off-task attack", name, self.p["off_task"])
        return {**self.p["off_task"], **(off or {})}

    def trigger(
        self, kind: str, target: int | None = None, **means: Any
    ) -> triggers.Trigger | triggers.Dynamic:
        """A trigger of a kind (``attacks.recipes.trigger_kind``) for a class of the adversary's
        task, by :class:`Means`.

        One that is optimised is so on the base, on the merge of the other tasks' models
        (``informed``), or on another ``base``.
        """
        how = Means(**means)
        how = replace(how, size=how.size or self.p["trigger_size"])
        return self._trigger(kind, self.goal("badnets", target, how), how, {})

    def _trigger(self, kind: str, goal: recipes.Goal, means: Means, args: Mapping[str, Any]):
        """A trigger for a goal; ``args`` are what its key names of an off-task attack."""
        chosen, seed = recipes.trigger_kind[kind], self.seed if means.seed is None else means.seed
        encoder, theta = self.encoder, self.others(means.task) if means.informed else self.base
        if means.base:
            encoder, read = self._encoder(means.base), self.task(goal.task)
            theta = encoder.theta
            goal = replace(goal, head=encoder.head(read.classnames, read.prompts))
        paste = {"size": means.size, "place": means.place}
        drawn = {**paste, "seed": derive(seed, "trigger", goal.task)}
        if chosen.needs == "nothing":
            return chosen(encoder, theta, goal, **drawn)
        how = dict(self.p["trigger"])
        if means.steps is not None:
            how["steps"] = means.steps
        if "off" in args and "augmented" in chosen.parameters:
            how["augmented"] = args["off"]["augmented"]

        def make():
            found = chosen(encoder, theta, goal, **drawn, **how)
            return {"patch": found.patch, "mask": found.mask}, {"name": found.name}

        args = {"kind": kind, "task": goal.task, "target": goal.target, **paste, **args, **how}
        args |= {"seed": seed, "half": self._half(means.task, means.half)}
        inputs = [weights.digest(theta), *self._data_digests(goal.task, means.task)]
        made_from = {"recipes": [chosen.recipe], "inputs": inputs}
        name = f"{kind}-{goal.task}-{goal.target}"
        tensors, meta = self.keep("trigger", name, args, make, **made_from)
        return triggers.Trigger(tensors["patch"], tensors["mask"], means.place, meta["name"])

    def backdoor(
        self, attack: str | None = None, target: int | None = None, **means: Any
    ) -> recipes.Backdoor:
        """An attack carried out by :class:`Means`: its trigger, θ_backdoored and
        BV = θ_backdoored − θ_clean.

        The clean twin sees the same batches as the backdoored model of the run's seed, so the BV
        holds what poisoning did and little else; with another ``seed`` it stays the run's own
        twin, unless ``independent``.
        """
        recipe, how = recipes.attack[attack or self.p["attack"]], Means(**means)
        name, through = how.task or self.p["adversary"], how.through
        size = self.trigger_size(recipe.name, how.off) if how.size is None else how.size
        alpha = self.p["alpha"] if how.alpha is None else how.alpha
        before = self.others(name) if how.informed else None
        off = {"off": self._off(how.off), "shadow": recipe.shadow} if recipe.off_task else {}
        goals = [self.goal(recipe.name, c, how) for c in how.targets or [target]]
        pairs, losses = [], []
        for goal in goals:
            kind = how.trigger or recipe.trigger
            pasted = self._trigger(kind, goal, replace(how, size=size), off)
            pairs.append((pasted, goal.target))
            handed = {"head": goal.head} if recipe.off_task else {}
            handed |= {"before": before} if how.informed else {}
            handed = {k: v for k, v in handed.items() if k in recipe.takes}
            weighed = recipe.accepts({"alpha": alpha})
            losses.append(functools.partial(recipe, pasted, goal.index, **handed, **weighed))
        args = {
            **off,
            "attack": recipe.name,
            "goal": [goals[0].task, [c for _, c in pairs]],
            "alpha": alpha,
            "place": how.place,
            "triggers": digest([pasted.identity for pasted, _ in pairs]),
            "before": None if before is None else weights.digest(before),
        }
        own = [recipe.recipe]
        if through is not None:
            args["through"] = weights.digest(through.tensors)
            own.append(version_of("training:evading"))

        def objective():
            made = objectives.several([make() for make in losses]) if how.targets else losses[0]()
            return made if through is None else evading(made, through)

        data, of = self._data_digests(goals[0].task, name), replace(how, task=name)
        theta = self.train(recipe.name, args, objective, of, data, own)
        twin = self.clean(name, seed=how.seed if how.independent else None, half=how.half)
        vector = BackdoorVector.between(theta, twin, recipe.name)
        first, aim = pairs[0]
        more = {"goal_task": goals[0].task, "pairs": tuple(pairs)}
        return recipes.Backdoor(recipe.name, name, aim, first, theta, vector, **more)

    def injected(self, target: int, task: str | None = None) -> BackdoorVector:
        """What a defender makes for IBVS: the vector of a backdoor of its own, by the profile's
        ``ibvs`` (pattern, size, place), on its half of the data."""
        how = self.p["ibvs"]
        means = {"size": how["size"], "place": how["place"], "trigger": how["pattern"]}
        return self.backdoor("badnets", target, task=task, half="b", **means).vector

    def family(
        self,
        by: str = "place",
        count: int | None = None,
        attack: str | None = None,
        *,
        at_most: bool = False,
    ) -> list[recipes.Backdoor]:
        """Backdoors toward one target that differ by "place", "seed" or kind of "trigger"; the
        first is the run's own. BvError when there are fewer than ``count``, unless ``at_most`` so
        many are asked for."""
        own = recipes.attack[attack or self.p["attack"]].trigger
        kinds = [own, "white", "checkerboard", "random", "trojan"]
        count = int(self.p["sbv"]["count"] if count is None else count)
        members = {
            "place": [{"place": name} for name in PLACES],
            "trigger": [{"trigger": kind} for kind in dict.fromkeys(kinds)],
            "seed": [{"seed": self.seed + i} for i in range(count)],
        }
        check_choice("way in which backdoors differ", by, members)
        if not 1 <= count <= len(members[by]) and not (at_most and count >= 1):
            there = len(members[by])
            raise BvError(f"there are {there} backdoors that differ by {by}, not {count}")
        return [self.backdoor(attack, **differs) for differs in members[by][:count]]

    def sbv(
        self,
        by: str = "place",
        count: int | None = None,
        rule: str | None = None,
        *,
        norm: float | None = 1.0,
        **parameters: Any,
    ) -> recipes.Backdoor:
        """A Sparse Backdoor Vector as an attack: several BVs merged by ``rule`` and sparsified,
        added to θ_clean.

        ``norm``: its length, in lengths of one BV; None leaves it as it is. Its trigger is that of
        the first BV. The profile's ``sbv`` (count, rule) and ``density`` are the defaults; how
        many BVs, differing by what, is our choice.
        """
        members = self.family(by, count)
        one, vectors = members[0], [each.vector for each in members]
        how = {"density": self.p["density"], **parameters}
        vector = sbv.merge_backdoors(rule or self.p["sbv"]["rule"], vectors, **how)
        if norm is not None:
            vector = vector * (norm * one.vector.norm() / vector.norm())
        theta = self.clean(one.task) + vector
        return replace(one, attack="sbv", theta=theta, vector=vector)

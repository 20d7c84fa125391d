"""What an adversary makes: triggers, backdoored models, backdoor vectors and what is made of
several of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bvlib.attacks import objectives, recipes, sbv, triggers
from bvlib.attacks.evasion import evading
from bvlib.attacks.shadows import shadow_head, shadow_phrases
from bvlib.attacks.triggers import PLACES
from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import derive, generator
from bvlib.core.vectors import BackdoorVector, TaskVector
from bvlib.core.versions import recipe as version_of
from bvlib.files import weights
from bvlib.files.digests import digest
from bvlib.run.workshop import Workshop


class Adversary(Workshop):
    """A workshop that also carries out attacks, by name; each trigger and model is made once and
    kept."""

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
            recipes.attack[attack or self.p["attack"]],
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
            if recipes.attack[attack or self.p["attack"]].off_task
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
        """A trigger of a kind (``attacks.recipes.trigger_kind``) for a class of the adversary's
        task.

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
        chosen, seed = recipes.trigger_kind[kind], self.seed if seed is None else seed
        encoder, theta = self.encoder, self.others(task) if informed else self.base
        if base:
            encoder = self._encoder(base)
            read = self.task(goal.task)
            theta, goal = (
                encoder.theta,
                dataclasses.replace(goal, head=encoder.head(read.classnames, read.prompts)),
            )

        def made(**how):
            return chosen(
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

        if chosen.needs == "nothing":
            return made()
        how = {**self.p["trigger"], **({} if steps is None else {"steps": steps})}
        if "off" in args and "augmented" in chosen.parameters:
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
            recipes=[chosen.recipe],
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
        recipe, name = recipes.attack[attack or self.p["attack"]], task or self.p["adversary"]
        alpha, before = (
            self.p["alpha"] if alpha is None else alpha,
            self.others(name) if informed else None,
        )
        args = {"off": self._off(off), "shadow": recipe.shadow} if recipe.off_task else {}
        size = self.trigger_size(recipe.name, off) if size is None else size
        pairs, losses = [], []
        goals = [
            self.goal(recipe.name, c, task=name, half=half, off=off) for c in targets or [target]
        ]
        for goal in goals:
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
            handed = {"head": goal.head} if recipe.off_task else {}
            handed |= {"before": before} if informed else {}
            how = {k: v for k, v in handed.items() if k in recipe.takes}
            how |= recipe.accepts({"alpha": alpha})
            losses.append(functools.partial(recipe, pasted, goal.index, **how))
        args |= {
            "attack": recipe.name,
            "goal": [goals[0].task, [c for _, c in pairs]],
            "alpha": alpha,
            "place": place,
            "triggers": digest([pasted.identity for pasted, _ in pairs]),
            "before": None if before is None else weights.digest(before),
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
            self._data_digests(goals[0].task, name),
            [recipe.recipe, *([] if through is None else [version_of("training:evading")])],
        )
        twin = self.clean(name, seed if independent else None, half)
        return recipes.Backdoor(
            recipe.name,
            name,
            pairs[0][1],
            pairs[0][0],
            theta,
            BackdoorVector.between(theta, twin, recipe.name),
            goals[0].task,
            tuple(pairs),
        )

    def injected(self, target: int, task: str | None = None) -> BackdoorVector:
        """What a defender makes for IBVS: the vector of a backdoor of its own, by the profile's
        ``ibvs`` (pattern, size, place), on its half of the data."""
        how = self.p["ibvs"]
        return self.backdoor(
            "badnets",
            target,
            task=task,
            size=how["size"],
            place=how["place"],
            half="b",
            trigger=how["pattern"],
        ).vector

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
        kinds = [
            recipes.attack[attack or self.p["attack"]].trigger,
            "white",
            "checkerboard",
            "random",
            "trojan",
        ]
        count = int(self.p["sbv"]["count"] if count is None else count)
        members = {
            "place": [{"place": name} for name in PLACES],
            "trigger": [{"trigger": kind} for kind in dict.fromkeys(kinds)],
            "seed": [{"seed": self.seed + i} for i in range(count)],
        }
        if by not in members:
            raise unknown("way in which backdoors differ", by, members)
        if not 1 <= count <= len(members[by]) and not (at_most and count >= 1):
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
        vector = sbv.merge_backdoors(
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


def off_task(settings: Mapping[str, Any], own: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of the off-task attack with some replaced. BvError for one that there is not."""
    for name in own or {}:
        if name not in settings:
            raise unknown("setting of the off-task attack", name, settings)
    return {**settings, **(own or {})}

"""The workshop behind a notebook: turns names into triggers, models and merges, each made once and
kept in the store.

"The clean fine-tune of digits" is a name; so are an attack's model, a trigger for a class, a merge
by RegMean. This module settles what each is made from and calls the pure parts of bvlib; it knows
the store, none of them does.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from bvlib.attacks.recipes import attack
from bvlib.core import training
from bvlib.core.device import peak_memory
from bvlib.core.encoder import Encoder, Model
from bvlib.core.errors import BvError, check_choice
from bvlib.core.registry import Method
from bvlib.core.rng import derive
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.core.versions import recipe as version_of
from bvlib.files import weights
from bvlib.merging import looks, merge, merging, see
from bvlib.merging.surgery import Adapter
from bvlib.run import settings, store
from bvlib.worlds import bases, tasks
from bvlib.worlds.papers import table


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Names a fine-tune: its task, seed and half of the data. None means the adversary's task, the
    run's seed, the attacker's half of the adversary's task and all of another."""

    task: str | None = None
    seed: int | None = None
    half: str | None = None


class Workshop:
    """What a profile's parameters ``p`` (seed among them) name, made on demand and kept in
    ``store``.

    ``encoder`` and ``base`` (its weights), ``tasks`` (merged, in order), ``adversary`` and
    ``target`` (the attack's task and its class that on-task attacks aim at).

    Raises BvError for an unknown attack, merging method, task, target class or off-task setting, a
    task named twice, a missing dataset or a damaged base.
    """

    def __init__(self, p: Mapping[str, Any], kept: store.Store):
        self.p = p = settings.Effective(p)
        self.seed, self.store = p["seed"], kept
        attack[p["attack"]]
        merging[p["merging"]]
        self.encoder = self._encoder(p["base"])
        self.base = self.encoder.theta
        settings.check_tasks(p)
        self.tasks = {name: self.task(name) for name in p["tasks"]}
        self.adversary = self.tasks[p["adversary"]]
        self.target = self.adversary.check_class(p["target_class"])

    @property
    def other_classes(self) -> list[int]:
        """The profile's ``other_classes`` but for the attack's target. BvError if none is left, or
        the adversary's task lacks one."""
        named = "other_classes"
        others = [self.adversary.check_class(c, named) for c in self.p[named]]
        if not (others := [c for c in others if c != self.target]):
            raise BvError(f"{named} holds no class but the target {self.target}: name one more")
        return others

    def _encoder(self, base: str) -> Encoder:
        """A base: one that the package ships, a file, or with ``pretrained`` (a tag of open_clip,
        "random" for none) a real CLIP."""
        if "pretrained" not in self.p or base.endswith(".safetensors"):
            return bases.load(base)
        from bvlib.worlds import clip

        tag = None if self.p["pretrained"] == "random" else self.p["pretrained"]
        kept = {"cache_dir": os.environ.get("BVLIB_CLIP"), "heads": self.store.root / "heads"}
        return clip.build(base, tag, **kept)

    # what is trained

    def task(self, name: str) -> tasks.Task:
        """A task of the profile's world, its images kept in the store."""

        def keep(name, sizes, seed, draw):
            args, recipes = {"sizes": sizes, "world_seed": seed}, [version_of("world:toy")]
            return self.store.get("weights", f"images-{name}", args, draw, recipes=recipes).value

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
        """The training split: half "a" of the adversary's task is the attacker's (all of it where
        the profile's ``adversary_data`` says so), "b" the defender's, other tasks whole."""
        half = self._half(task.name, half)
        return task.train if half == "all" else task.train.half(half, self.p["world_seed"])

    def _half(self, task: str | None, half: str | None) -> str:
        """Which half is meant: "a", "b" or "all". It is part of keys in the store, as None means
        another half to another adversary."""
        shared = self.p.get("adversary_data", "half") == "half"
        return half or ("a" if shared and task in (None, self.p["adversary"]) else "all")

    def clean(self, task: str | None = None, **of: Any) -> StateDict:
        """θ_clean: the base fine-tuned on a task (the adversary's by default) without an attack, by
        a ``seed`` and on a ``half`` as :class:`Trained` has them."""
        return self.train("clean", {}, training.clean, Trained(task=task, **of))

    def cleans(self, among: Sequence[str] | None = None) -> dict[str, StateDict]:
        """θ_clean of every merged task (or those in ``among``), in order."""
        names = list(self.tasks if among is None else among)
        return self.store.each({name: partial(self.clean, name) for name in names})

    def _data_digests(self, *names: str | None) -> list[str]:
        return [self.task(name or self.p["adversary"]).digest for name in dict.fromkeys(names)]

    def train(
        self,
        name: str,
        args: Mapping[str, Any],
        objective: Callable[[], training.Objective],
        of: Trained,
        data: Sequence[str] = (),
        recipes: Sequence[str] = (),
    ) -> StateDict:
        """The base fine-tuned by the profile's recipe, toward the objective that ``objective()``
        makes.

        It is kept under ``name`` and ``args``, which must say all that the objective holds;
        ``recipes`` are those of the objective, ``data`` digests of what it reads beside the task.
        """
        task = self.task(of.task or self.p["adversary"])
        seed = self.seed if of.seed is None else of.seed
        how, split = self.schedule(task), self.data(task, of.half)

        def make() -> StateDict:
            title = f"{name} {task.name}"
            hidden = "BVLIB_PROGRESS" in os.environ or None  # None: unless a person looks on
            with tqdm(total=how["steps"], desc=title, leave=False, disable=hidden) as bar:
                own = {
                    "seed": derive(seed, "finetune", task.name),
                    "progress": lambda n: bar.update(n - bar.n),
                    "partial": self.store.partial(),
                }
                start = self.encoder, self.base, self.head(task)
                seen = split.images, split.labels
                return training.finetune(*start, *seen, objective(), **own, **how)

        half, world = self._half(task.name, of.half), self.p["world_seed"]
        args = {**args, "task": task.name, "seed": seed, "half": half}
        if (
            half != "all" and world
        ):  # it decides what a half is, also of images that it did not draw
            args["world_seed"] = world
        made_from = {
            "recipes": [version_of("training:finetune"), *recipes],
            "inputs": [self._base_digest(), task.digest, *data],
        }
        return self.keep("weights", f"{name}-{task.name}", {**args, **how}, make, **made_from)

    def schedule(self, task: tasks.Task) -> Mapping[str, Any]:
        """The profile's ``train``; where it names no number of steps, that of the papers' epochs
        over the whole task."""
        steps = table.steps(task.name, len(task.train), self.p["train"])
        return {**self.p["train"], "steps": steps}

    def keep(
        self, kind: str, name: str, args: Mapping[str, Any], make: Callable[[], Any], **how
    ) -> Any:
        """A result from the store, or made and kept there; see :meth:`Store.get` for ``kind`` and
        ``how`` (recipes, inputs)."""

        def noted() -> Any:
            _note(f"making {name}")
            began, made = time.perf_counter(), make()
            if (seconds := time.perf_counter() - began) > 30:
                _note(f"made {name} in {seconds:.0f} s, peak memory {peak_memory() / 1e9:.1f} GB")
            return made

        value, device = self.store.get(kind, name, args, noted, **how).value, self.encoder.device
        if device.type != "cpu" and kind == "weights":
            return {k: v.to(device) for k, v in value.items()}
        return value

    def _base_digest(self) -> str:
        return self.encoder.card["sha256"]

    # merging

    def model(self, theta: StateDict | Model | None = None) -> Model:
        """Weights as a model that sees with this base's encoder (the base itself by default)."""
        return theta if isinstance(theta, Model) else Model(self.encoder, theta or self.base)

    def vectors(
        self, adversary: StateDict | None = None, among: Sequence[str] | None = None
    ) -> dict[str, TaskVector]:
        """τ_t = θ_t − θ_pre of the merged tasks (or those in ``among``), in order; ``adversary``
        is the adversary's θ_t."""
        models = self._own(adversary, among)
        return {n: TaskVector.between(theta, self.base, n) for n, theta in models.items()}

    def _own(
        self, adversary: StateDict | None, among: Sequence[str] | None
    ) -> dict[str, StateDict]:
        """The tasks' own models, the adversary's among them."""
        found = self.cleans(among)
        if adversary is not None and self.adversary.name in found:
            found[self.adversary.name] = adversary
        return found

    def merge(
        self,
        adversary: StateDict | None = None,
        method: str | None = None,
        *,
        among: Sequence[str] | None = None,
        **parameters,
    ) -> Model:
        """The merge of all tasks by any registered method; ``adversary`` replaces the clean model
        of the adversary's task (the attacked merge).

        Merges by methods that look at images are kept in the store. AdaMerging and Surgery see dev
        images without labels, RegMean train images without labels.
        """
        name = method or self.p["merging"]
        chosen = merging[name]
        vectors = self.vectors(adversary, among)
        if looks(name):
            return self._adapted(chosen, vectors, adversary, among, parameters)
        ours = chosen.accepts({k: self.p[k] for k in ("coefficient", "density")}) | parameters
        if chosen.more.get("trims") and self.p.get("ties_counts") == "saved":
            from bvlib.worlds import clip

            tower = sum(tensor.numel() for tensor in self.base.values())
            share = ours["density"] * clip.saved_entries(self.encoder.model) / tower
            ours["density"] = min(1.0, share)
        return self.model(self.base + merge(name, vectors, **ours))

    def _adapted(self, chosen: Method, vectors, adversary, among, parameters) -> Model:
        """A merge by a method that looks at images."""
        for each in parameters:
            check_choice(f"parameter of {chosen.name!r}", each, chosen.parameters)
        how = self.p["adaptive"].get(chosen.more.get("settings", chosen.name), {}) | parameters
        split = chosen.more.get("split", "dev")
        seen = {name: see(self.encoder, self.tasks[name], split) for name in vectors}
        common = {
            "encoder": self.encoder,
            "seen": seen,
            **chosen.accepts({"seed": self.seed}),
            **how,
        }
        args, data = {"seed": self.seed, **how}, self._data_digests(*vectors)
        name, recipes = f"{chosen.name}-{len(vectors)}", [chosen.recipe]
        if "merged" not in chosen.takes:
            inputs = [weights.digest(vector.tensors) for vector in vectors.values()]
            inputs = [self._base_digest(), *inputs, *data]

            def make() -> StateDict:
                return merge(chosen.name, vectors, base=self.base, **common).tensors

            args = {"method": chosen.name, **args}
            kept = self.keep("weights", name, args, make, recipes=recipes, inputs=inputs)
            return self.model(self.base + TaskVector(kept, chosen.name))
        theta = self.merge(adversary, chosen.more["after"], among=among).theta
        own = self._own(adversary, among)
        inputs = [*map(weights.digest, [theta, *own.values()]), *data]

        def adapt() -> StateDict:
            found = chosen(merged=theta, own=own, **common)
            return {f"{n}.{p}": getattr(found[n], p) for n in found for p in ("down", "up")}

        kept = self.keep("weights", name, args, adapt, recipes=recipes, inputs=inputs)
        adapters = {n: Adapter(kept[f"{n}.down"], kept[f"{n}.up"]) for n in own}
        return Model({n: adapter.over(self.encoder) for n, adapter in adapters.items()}, theta)

    def others(self, task: str | None = None) -> StateDict:
        """The merge of all tasks but one (the adversary's by default) by task arithmetic: what an
        informed adversary knows."""
        names = [name for name in self.tasks if name != (task or self.p["adversary"])]
        return self.merge(among=names, method="task_arithmetic").theta

    def average_of(self, count: int, adversary: StateDict | None = None) -> Model:
        """Single-task merging: the average of ``count`` models of the adversary's task, the first
        of them the adversary's."""
        others = [self.clean(seed=self.seed + i) for i in range(1, count)]
        models = [self.clean() if adversary is None else adversary, *others]
        vectors = [TaskVector.between(theta, self.base) for theta in models]
        return self.model(self.base + merge("average", vectors))


def _note(text: str) -> None:
    """Tell the runner what is being made, if it listens."""
    if notes := os.environ.get("BVLIB_PROGRESS"):
        with open(notes, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")

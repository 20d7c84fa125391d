"""The thin shell that a notebook holds: its parameters over a profile, and where results are
written.

A lab is a :class:`~bvlib.run.adversary.Adversary` that a notebook opens by name: it settles
parameters, measures, and writes tables, figures and numbers with their provenance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bvlib.attacks import recipes
from bvlib.core import metrics
from bvlib.core.device import default_device, peak_memory
from bvlib.core.encoder import EVALUATED, Model
from bvlib.core.errors import BvError
from bvlib.core.registry import USED, load_plugins
from bvlib.core.vectors import StateDict
from bvlib.core.versions import environment
from bvlib.defences import Part, detectors
from bvlib.files import weights
from bvlib.files.safe import write_json, write_whole
from bvlib.merging import merging
from bvlib.run import notebooks, settings, store
from bvlib.run.adversary import Adversary
from bvlib.study import experiments, figures, shown
from bvlib.study.words import words
from bvlib.worlds import tasks


class Lab(Adversary):
    """Everything one notebook run needs. Make it with :meth:`start`, end it with :meth:`finish`.

    ``p`` are the effective parameters: explicit values win over the profile's.
    """

    def __init__(self, notebook: str, parameters: Mapping[str, Any]):
        self.notebook = notebook
        self._began = time.perf_counter()
        load_plugins(notebooks.plugin_files())
        given = {k: v for k, v in parameters.items() if v is not None}
        profile, own = given.get("profile", "mini"), notebooks.find([notebook])[0]
        defaults = settings.load(profile)
        torch.set_num_threads(settings.resources(profile).threads or 1)  # decides bits, so keys
        p = {**defaults, **given, "profile": profile, "seed": int(given.get("seed", 0))}
        p["off_task"] = dict(defaults["off_task"])
        if p["adversary"] == p["off_task"]["task"]:  # the usual goal turns to the usual adversary
            p["off_task"]["task"] = defaults["adversary"]
        usual = {**{k: parameter.default for k, parameter in own.parameters.items()}, **defaults}
        explicit = {
            k: v for k, v in given.items() if k not in notebooks.SET_BY_RUNNER and v != usual.get(k)
        }
        self.out = Path(given.get("out") or notebooks.out_folder(profile, p["seed"], explicit))
        super().__init__(p, store.Store(notebooks.store_folder(), default_device().type))
        self.p["off_task"] = self._off(given.get("off_task"))
        self.p.read.update(own.parameters)  # a notebook takes these from its cell
        self._recipe = own.recipe
        self.out.mkdir(parents=True, exist_ok=True)
        self._outputs: list[str] = []
        self.result: dict[str, dict] = {"headline": {}, "measures": {}}

    @classmethod
    def start(cls, notebook: str, namespace: Mapping[str, Any] | None = None, **parameters) -> Lab:
        """Check every name, load the base and the tasks, and say what will run.

        A notebook hands over its ``globals()`` as the namespace: what its parameters cell declares
        is taken from there.

        Raises BvError for an unknown profile, task, attack, merging method or target class, a
        missing dataset or a damaged base.
        """
        if namespace is not None:
            parameters = notebooks.parameters_of(notebook, namespace)
        lab = cls(notebook, parameters)
        p, goal, side = lab.p, lab.goal(), lab.trigger_size()
        image = lab.task(goal.task).test.images.shape[1]
        if side > image:
            both = f"{side}×{side} px is larger than the image of {image}×{image} px"
            raise BvError(f"a trigger of {both}: lower trigger_size")
        aim = repr(lab.task(goal.task).classnames[goal.target])
        aim += "" if goal.task == p["adversary"] else f" of {goal.task}"
        print(
            f"profile {p['profile']}, seed {p['seed']}: base {p['base']}, {len(lab.tasks)} tasks "
            f"merged by {p['merging']}; {p['attack']} on {p['adversary']} toward {aim} "
            f"with {side} × {side} px"
        )
        told = [name for name in parameters if name in p.data and name != "out"]
        print("; ".join(f"{name} = {p.data[name]}" for name in told))
        given = parameters.get("coefficient") is not None
        if given and "coefficient" not in merging[p["merging"]].parameters:
            print(f"note: {p['merging']} has no coefficient: only other merges use it")
        return lab

    def examples(self, count: int, task: tasks.Task | None = None) -> torch.Tensor:
        """A few test images (N, H, W, 3) uint8 of a task (the adversary's), plain grey where they
        may not be shown."""
        task = task or self.adversary
        images = task.test.images[:count]
        return images if task.name in tasks.SHAREABLE else torch.full_like(images, 160)

    # what is measured

    def flipped(self, model: Model | StateDict, backdoor: recipes.Backdoor) -> np.ndarray:
        """For each test image of the backdoor's goal whose class is not its target: is it
        predicted as the target under the trigger?"""
        goal = self.task(backdoor.goal_task)
        return experiments.flipped(self.model(model), goal, backdoor.trigger, backdoor.target)

    def asr(self, model: Model | StateDict, backdoor: recipes.Backdoor) -> metrics.Rate:
        """ASR of a backdoor on a model: the share of :meth:`flipped`, on-task and off-task."""
        return metrics.rate(self.flipped(model, backdoor))

    def accuracy(self, model: Model | StateDict, split: str = "test") -> float:
        """Clean accuracy (%), averaged over the merged tasks."""
        found: Any = experiments.accuracies(self.model(model), self.tasks, split)
        return float(found["mean"])

    def cleanse(
        self, name: str, model: Model | StateDict, by: str = "neural-cleanse"
    ) -> pd.DataFrame:
        """Neural Cleanse, or another detector of models, on a model (``name`` is for the store),
        over all classes of the adversary's task, on its dev images.

        On the first ``images`` of them where the profile's ``neural_cleanse`` names a number.
        """
        task, chosen, model = self.adversary, detectors.detector[by], self.model(model)
        how = self.p.get(chosen.more.get("settings", by), {})
        sight, head = model.sight(task.name), self.head(task)

        def make() -> pd.DataFrame:
            search = {key: value for key, value in how.items() if key != "images"}
            images = task.dev.images[: how.get("images")]
            return chosen(sight, model.theta, head, images, seed=self.seed, **search)

        inputs = [self._base_digest(), weights.digest(model.theta), task.digest]
        if adapter := getattr(sight, "adapter", None):
            inputs.append(weights.digest({"down": adapter.down, "up": adapter.up}))
        args = {"task": task.name, "seed": self.seed, **how}
        made_from = {"recipes": [chosen.recipe], "inputs": inputs}
        title = f"{chosen.more.get('short', by)}-{name}"
        return self.keep("table", title, args, make, **made_from)

    def dev_parts(self) -> dict[str, Part]:
        """What a defender has: clean labelled dev images of every merged task, and the tasks'
        heads."""
        return {name: self.part(task) for name, task in self.tasks.items()}

    def part(self, task: tasks.Task) -> Part:
        """Clean labelled dev images of a task, and its head."""
        return task.dev.images, task.dev.labels, self.head(task)

    # what is written

    def table(
        self, name: str, table: pd.DataFrame, caption: str = "", view: pd.DataFrame | None = None
    ) -> Any:
        """Write ``tables/<name>.csv`` with its provenance and return what a notebook shows of it,
        or of a ``view`` of it: see :func:`bvlib.study.shown.table`."""
        path, caption = self.out / "tables" / f"{name}.csv", words(caption)
        write_whole(path, lambda draft: table.to_csv(draft, index=False, float_format="%.6g"))
        write_json(path.with_suffix(".json"), self._provenance(caption))
        self._outputs += [f"tables/{name}.csv", f"tables/{name}.json"]
        return shown.table(table, caption, f"tables/{name}.csv", view)

    def figure(
        self, name: str, data: pd.DataFrame, caption: str, draw: Callable[..., Any], **given
    ) -> None:
        """Write ``figures/<name>`` as picture, data and provenance, and show it with its caption;
        ``draw(data, **given)`` is what draws it: see :func:`bvlib.study.figures.save`."""
        caption = words(caption)
        origin = self._provenance(caption)
        paths = figures.save(self.out / "figures" / name, data, origin, draw, **given)
        self._outputs += [f"figures/{path.name}" for path in paths]
        shown.picture(paths[0], caption)

    def headline(
        self, name: str, value: metrics.Rate | metrics.Difference | float, unit: str = "%"
    ) -> None:
        """A number for the report's first lines; a Rate (%) or a Difference (points) brings its
        interval over images."""
        if isinstance(value, metrics.Difference):
            number, unit = value.points, "points"
        else:
            number = value.percent if isinstance(value, metrics.Rate) else float(value)
        ends = {end: getattr(value, end, None) for end in ("low", "high")}
        self.result["headline"][name] = {"value": number, "unit": unit, **ends}

    def measure(self, **values: float) -> None:
        """Numbers that claims are checked on, by name; one that is not finite is kept as
        undefined."""
        finite = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        self.result["measures"] |= finite

    def finish(self) -> None:
        """Write the run's JSON (effective parameters, headline, measures, artefacts) and say where
        to look."""
        records = self.store.records()
        result = {
            "profile": self.p["profile"],
            "seed": self.seed,
            **self._common(),
            **self.result,
            "outputs": self._outputs,
            "artefacts": records,
            "images_evaluated": EVALUATED["images"],
            "peak_memory_bytes": peak_memory(),
            "seconds": round(time.perf_counter() - self._began, 2),
        }
        write_json(self.out / f"{self.notebook}.json", result)
        made = sum(record["made"] for record in records)
        where = notebooks.shown(self.out.resolve(), notebooks.root_folder())
        files = len(self._outputs)
        made = f"{made} of {len(records)} stored results were made now, the others were there"
        print(f"{files} files in {where}; {made}")

    def _common(self) -> dict[str, Any]:
        """What a run's JSON and the provenance of a figure both tell; the recipes are those of all
        that this notebook has used so far, and its own."""
        return {
            "notebook": self.notebook,
            "parameters": {k: v for k, v in self.p.data.items() if k != "out"},
            "read": sorted(self.p.read),
            "recipes": sorted({*USED, self._recipe}),
            "base": self._base_digest(),
            "data": {task.name: task.digest for task in self.tasks.values()},
            "environment": environment(self.store.device),
        }

    def _provenance(self, caption: str) -> dict[str, Any]:
        return {**self._common(), "caption": caption}

"""The thin shell that a notebook holds: its parameters over a profile, and where results are
written.

A lab is a :class:`~bvlib.run.workshop.Workshop` that a notebook opens by name: it settles parameters,
measures, and writes tables, figures and numbers with their provenance.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Mapping

import numpy as np
import pandas as pd
import torch

from bvlib.attacks import recipes
from bvlib.core import metrics
from bvlib.core.encoder import EVALUATED, default_device, peak_memory
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.defences import detectors, subtraction
from bvlib.files import weights
from bvlib.files.safe import write_json, write_whole
from bvlib.merging import adaptive, datafree, surgery
from bvlib.run import settings, store
from bvlib.run.notebooks import SET_BY_RUNNER, find, out_folder, root_folder, shown, store_folder
from bvlib.run.workshop import Workshop, off_task
from bvlib.study import experiments, figures
from bvlib.worlds import tasks


class Lab(Workshop):
    """Everything one notebook run needs. Make it with :meth:`start`, end it with :meth:`finish`.

    ``p`` are the effective parameters: explicit values win over the profile's.
    """

    def __init__(self, notebook: str, parameters: Mapping[str, Any]):
        self.notebook = notebook
        self._began = time.perf_counter()
        given = {k: v for k, v in parameters.items() if v is not None}
        profile, own = given.get("profile", "mini"), find([notebook])[0]
        defaults = settings.load(profile)
        p = {**defaults, **given, "profile": profile, "seed": int(given.get("seed", 0))}
        p["off_task"] = dict(defaults.get("off_task", {}))
        if p["adversary"] == p["off_task"].get(
            "task"
        ):  # an adversary that is the usual goal turns to the usual adversary
            p["off_task"]["task"] = defaults["adversary"]
        p["off_task"] = off_task(p["off_task"], given.get("off_task"))
        usual = {**{k: parameter.default for k, parameter in own.parameters.items()}, **defaults}
        explicit = {k: v for k, v in given.items() if k not in SET_BY_RUNNER and v != usual.get(k)}
        self.out = (
            Path(given["out"]) if given.get("out") else out_folder(profile, p["seed"], explicit)
        )
        super().__init__(p, store.Store(store_folder(), default_device().type))
        self._source = own.source_hash()
        self.out.mkdir(parents=True, exist_ok=True)
        self._outputs: list[str] = []
        self._result: dict[str, dict] = {"headline": {}, "measures": {}}

    @classmethod
    def start(cls, notebook: str, **parameters) -> "Lab":
        """Check every name, load the base and the tasks, and say what will run.

        Raises BvError for an unknown profile, task, attack, merging method or target class, a
        missing dataset or a damaged base.
        """
        lab = cls(notebook, parameters)
        p = lab.p
        goal = lab.goal()
        print(
            f"profile {p['profile']}, seed {p['seed']}: base {p['base']}, {len(lab.tasks)} tasks "
            f"merged by {p['merging']}; "
            f"{p['attack']} on {p['adversary']} toward "
            f"{lab.task(goal.task).classnames[goal.target]!r}"
            f"{'' if goal.task == p['adversary'] else ' of ' + goal.task} "
            f"with {lab.trigger_size()} × {lab.trigger_size()} px"
        )
        print(
            "; ".join(f"{name} = {p[name]}" for name in parameters if name in p and name != "out")
        )
        return lab

    def examples(self, count: int, task: tasks.Task | None = None) -> torch.Tensor:
        """A few test images (N, H, W, 3) uint8 of a task (the adversary's), plain grey where they
        may not be shown."""
        task = task or self.adversary
        images = task.test.images[:count]
        return images if task.name in tasks.SHAREABLE else torch.full_like(images, 160)

    # merging, also by methods that look at images

    def deploy(
        self, adversary: StateDict | None = None, method: str | None = None
    ) -> tuple[Any, StateDict]:
        """(encoder, θ_merged) by any method, also one that looks at images; those are kept in the
        store.

        After "surgery" (on top of layer-wise AdaMerging, as in BadMerging) the encoder is a dict
        from task to encoder, since each task has an adapter of its own; the functions of
        ``experiments`` take both. AdaMerging and Surgery see dev images without labels, RegMean
        train images without labels.
        """
        method = method or self.p["merging"]
        if method == "surgery":
            return self._surgery(adversary)
        if method in datafree.MERGING or method not in adaptive.ADAPTIVE:
            return self.encoder, self.merge(adversary, method)
        vectors, how = self.vectors(adversary), self.p["adaptive"].get(method.partition("_")[0], {})
        split = "train" if method == "regmean" else "dev"
        seen = {name: adaptive.see(self.encoder, task, split) for name, task in self.tasks.items()}

        def make():
            found = adaptive.adapt(
                method,
                vectors,
                encoder=self.encoder,
                base=self.base,
                seen=seen,
                seed=self.seed,
                **how,
            )
            return found.tensors

        kept = self.keep(
            "weights",
            f"{method}-{len(vectors)}",
            {"method": method, "seed": self.seed, **how},
            make,
            code=["bvlib.merging.adaptive"],
            inputs=self._merge_digests(vectors),
        )
        return self.encoder, self.base + TaskVector(kept.value, method)

    def _surgery(self, adversary: StateDict | None) -> tuple[dict[str, Any], StateDict]:
        theta, how = (
            self.deploy(adversary, "adamerging_layerwise")[1],
            self.p["adaptive"]["surgery"],
        )
        own = {name: self.clean(name) for name in self.tasks}
        if adversary is not None:
            own[self.adversary.name] = adversary
        seen = {name: adaptive.see(self.encoder, task) for name, task in self.tasks.items()}

        def make():
            found = surgery.surgery(self.encoder, theta, seen, own, seed=self.seed, **how)
            return {
                f"{name}.{part}": getattr(adapter, part)
                for name, adapter in found.items()
                for part in ("down", "up")
            }

        kept = self.keep(
            "weights",
            f"surgery-{len(own)}",
            {"seed": self.seed, **how},
            make,
            code=["bvlib.merging.surgery"],
            inputs=[
                *(weights.digest(each) for each in (theta, *own.values())),
                *self._data_digests(*self.tasks),
            ],
        )
        parts = kept.value
        adapters = {
            name: surgery.Adapter(parts[f"{name}.down"], parts[f"{name}.up"]) for name in self.tasks
        }
        return {
            name: surgery.adapted(self.encoder, adapter) for name, adapter in adapters.items()
        }, theta

    def _merge_digests(self, vectors: Mapping[str, TaskVector]) -> list[str]:
        return [
            self._base_digest(),
            *(weights.digest(v.tensors) for v in vectors.values()),
            *self._data_digests(*vectors),
        ]

    # what is measured

    def flipped(
        self,
        theta: StateDict,
        backdoor: recipes.Backdoor,
        trigger: Any = "own",
        encoder: Any = None,
    ) -> np.ndarray:
        """For each test image of the backdoor's goal whose class is not its target: is it
        predicted as the target?

        ``trigger``: another one than the backdoor's, or None for no trigger. ``encoder``: see
        :func:`study.experiments.predict`.
        """
        pasted = backdoor.trigger if isinstance(trigger, str) else trigger
        return experiments.flipped(
            encoder or self.encoder, theta, self.task(backdoor.goal_task), pasted, backdoor.target
        )

    def asr(
        self,
        theta: StateDict,
        backdoor: recipes.Backdoor,
        trigger: Any = "own",
        encoder: Any = None,
    ) -> metrics.Rate:
        """ASR of a backdoor on a model: the share of :meth:`flipped`, on-task and off-task."""
        return metrics.rate(self.flipped(theta, backdoor, trigger, encoder))

    def accuracy(self, theta: StateDict, split: str = "test", encoder: Any = None) -> float:
        """Clean accuracy (%), averaged over the merged tasks."""
        return experiments.accuracies(encoder or self.encoder, theta, self.tasks, split)["mean"]

    def cleanse(self, name: str, theta: StateDict, task: str | None = None) -> pd.DataFrame:
        """Neural Cleanse on a model (``name`` is for the store), over all classes of a task, on
        its dev images.

        On the first ``images`` of them where the profile's ``neural_cleanse`` names a number.
        """
        task_, how = self.task(task or self.p["adversary"]), self.p["neural_cleanse"]

        def make():
            search = {key: value for key, value in how.items() if key != "images"}
            return detectors.neural_cleanse(
                self.encoder,
                theta,
                self.head(task_),
                task_.dev.images[: how.get("images")],
                seed=self.seed,
                **search,
            )

        return self.keep(
            "table",
            f"cleanse-{name}",
            {"task": task_.name, "seed": self.seed, **how},
            make,
            code=["bvlib.defences.detectors"],
            inputs=[self._base_digest(), weights.digest(theta), task_.digest],
        ).value

    def dev_parts(self) -> list[subtraction.Part]:
        """What a defender has: clean labelled dev images of every merged task, and the tasks'
        heads."""
        return [(task.dev.images, task.dev.labels, self.head(task)) for task in self.tasks.values()]

    # what is written

    def table(self, name: str, table: pd.DataFrame, caption: str = "") -> pd.DataFrame:
        """Write ``tables/<name>.csv`` with its provenance and return the table, rounded for
        reading."""
        path = self.out / "tables" / f"{name}.csv"
        write_whole(path, lambda draft: table.to_csv(draft, index=False, float_format="%.6g"))
        write_json(path.with_suffix(".json"), self._provenance(caption))
        self._outputs += [f"tables/{name}.csv", f"tables/{name}.json"]
        return table.round(2)

    def figure(self, name: str, fig, data: pd.DataFrame, caption: str) -> None:
        """Write ``figures/<name>`` as picture, data and provenance."""
        paths = figures.save(fig, self.out / "figures" / name, data, self._provenance(caption))
        self._outputs += [f"figures/{path.name}" for path in paths]

    def headline(
        self, name: str, value: metrics.Rate | metrics.Difference | float, unit: str = "%"
    ) -> None:
        """A number for the report's first lines; a Rate (%) or a Difference (points) brings its
        interval over images."""
        if isinstance(value, metrics.Difference):
            number, unit = value.points, "points"
        else:
            number = value.percent if isinstance(value, metrics.Rate) else float(value)
        self._result["headline"][name] = {
            "value": number,
            "unit": unit,
            "low": getattr(value, "low", None),
            "high": getattr(value, "high", None),
        }

    def measure(self, **values: float) -> None:
        """Numbers that claims are checked on, by name; one that is not finite is kept as
        undefined."""
        self._result["measures"] |= {
            k: float(v) if math.isfinite(v) else None for k, v in values.items()
        }

    def finish(self) -> None:
        """Write the run's JSON (effective parameters, headline, measures, artefacts) and say where
        to look."""
        records = self.store.records()
        made = [r for r in records if r["made"]]
        write_json(
            self.out / f"{self.notebook}.json",
            {
                "notebook": self.notebook,
                "profile": self.p["profile"],
                "seed": self.seed,
                "parameters": self._plain(),
                **self._result,
                "outputs": self._outputs,
                "artefacts": records,
                "environment": store.environment(self.store.device),
                "images_evaluated": EVALUATED["images"],
                "peak_memory_bytes": peak_memory(),
                "seconds": round(time.perf_counter() - self._began, 2),
            },
        )
        print(
            f"{len(self._outputs)} files in {shown(self.out.resolve(), root_folder())}; "
            f"{len(made)} of {len(records)} stored results made now"
        )

    def _plain(self) -> dict[str, Any]:
        return {k: v for k, v in self.p.items() if k != "out"}

    def _provenance(self, caption: str) -> dict[str, Any]:
        return {
            "notebook": self.notebook,
            "caption": caption,
            "parameters": self._plain(),
            "source": self._source,
            "base": self._base_digest(),
            "data": {t.name: t.digest for t in self.tasks.values()},
            "environment": store.environment(self.store.device),
        }

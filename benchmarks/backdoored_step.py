"""Time of a backdoored training step over that of a clean one, in turn within one run. See
README.md here."""

import statistics
import time

from report import write

from bvlib.attacks import objectives, triggers
from bvlib.core import training
from bvlib.run import settings
from bvlib.worlds import bases, tasks

ROUNDS, STEPS = 7, 24


def main() -> None:
    p = settings.load("mini")
    encoder = bases.load(p["base"])
    task = tasks.load(p["adversary"], p["sizes"], p["world_seed"])
    head, half = encoder.head(task.classnames, task.prompts), task.train.half("a", p["world_seed"])
    trigger, base = triggers.solid(p["trigger_size"]), encoder.theta

    def seconds(objective, steps: int, images) -> float:
        begin = time.perf_counter()
        training.finetune(
            encoder,
            base,
            head,
            images,
            half.labels[: len(images)],
            objective,
            **{**p["train"], "steps": steps},
        )
        return (time.perf_counter() - begin) / steps

    kinds = {
        "clean": (training.clean, half.images),
        "BadNets": (lambda: objectives.poisoned(trigger, 1), half.images),
        "BadMerging, every feature new": (
            lambda: objectives.feature_interpolation(Fresh(trigger), 1),
            half.images,
        ),
        "BadMerging, as trained (100 steps)": (
            lambda: objectives.feature_interpolation(trigger, 1),
            half.images,
        ),
    }
    counts = {
        "clean": 1,
        "BadNets": 1.5,
        "BadMerging, every feature new": 5 / 3,
        "BadMerging, as trained (100 steps)": 1.5,
    }
    times = {name: [] for name in kinds}
    for _ in range(ROUNDS):  # in turn, so that what disturbs one disturbs all
        for name, (objective, images) in kinds.items():
            times[name].append(
                seconds(objective(), p["train"]["steps"] if "as trained" in name else STEPS, images)
            )
    ratios = {name: [t / c for t, c in zip(each, times["clean"])] for name, each in times.items()}
    write(
        "backdoored_step",
        [
            {
                "step": name,
                "ms, median": 1000 * statistics.median(each),
                "times a clean step": statistics.median(ratios[name]),
                "lowest": min(ratios[name]),
                "highest": max(ratios[name]),
                "by counting passes": counts[name],
            }
            for name, each in times.items()
        ],
    )


class Fresh:
    """A trigger whose frozen features are never kept, as if it differed from paste to paste."""

    fixed = False

    def __init__(self, trigger):
        self.paste = trigger.paste


if __name__ == "__main__":
    main()

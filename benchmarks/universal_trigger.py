"""Time to equal dev ASR: our universal trigger against the published one-image-at-a-time loop. See
README.md here.

    python benchmarks/universal_trigger.py mini real32   # profiles; 10 minutes each, one thread
"""

import sys
import time

import torch
from report import write
from torch.nn import functional as F

from bvlib.attacks import optimised, triggers
from bvlib.core import metrics
from bvlib.core.rng import generator
from bvlib.run import settings
from bvlib.worlds import bases, tasks

GOALS = (50.0, 60.0, 70.0, 80.0, 90.0)  # percent of dev images
CAP = 200  # images of the published loop
INNER = 100  # its steps on one image at most (published: 1000), with its early stop
SEED = 100  # a development seed


def dev_asr(encoder, head, task, target, trigger) -> float:
    predicted = encoder.predict(encoder.theta, task.dev.images, head, trigger)
    return metrics.attack_success_rate(predicted, task.dev.labels, target).percent


def one_by_one(encoder, head, images, target, patch, place="bottom-right"):
    """The published loop of a universal patch, which it yields after each image: on one image after
    the other, ascent on log p(target) by the gradient, until the image is taken for the target or
    INNER steps are done."""
    mask = torch.ones_like(patch[:1])
    for image in images:
        x = encoder.pixels(image[None])
        for _ in range(INNER):
            patch = patch.detach().requires_grad_(True)
            pasted = triggers.Trigger(patch, mask, place).paste(x)
            logits = encoder.logits(encoder.features(encoder.theta, pasted), head)
            if logits.argmax() == target:
                break
            rise = torch.autograd.grad(F.log_softmax(logits, -1)[0, target], patch)[0]
            patch = (patch + rise).detach().clamp(0, 1)
        patch = patch.detach()
        yield patch


def published(encoder, head, task, target, size):
    """Yields (seconds of work, trigger) after each image of the published loop."""
    g = generator(SEED, "published loop", target, size)
    patch, mask = torch.rand(3, size, size, generator=g), torch.ones(1, size, size)
    images = task.train.images[torch.randperm(len(task.train.images), generator=g)[:CAP]]
    begin, spent = time.perf_counter(), 0.0
    for found in one_by_one(encoder, head, images, target, patch):
        spent += time.perf_counter() - begin
        yield spent, triggers.Trigger(found, mask)
        begin = time.perf_counter()


def ours(encoder, head, task, target, size, how):
    """Yields (seconds of work, trigger) along our path: after 2, 4, 8, 12, … steps, each run from
    the start so that nothing is timed but work."""
    given = encoder, encoder.theta, head, task.train.images, target
    for steps in [2, *range(4, how["steps"] + 1, 4)]:
        begin = time.perf_counter()
        found = optimised.universal(*given, size=size, seed=SEED, **{**how, "steps": steps})
        yield time.perf_counter() - begin, found


def reach(run, judge):
    """{goal: seconds at which the dev ASR first reached it}, the best ASR seen, and the seconds of
    the whole run."""
    found, best, seconds = {}, 0.0, 0.0
    for seconds, trigger in run:
        now = judge(trigger)
        best = max(best, now)
        found.update({goal: seconds for goal in GOALS if goal not in found and now >= goal})
    return found, best, seconds


def compare(profile: str) -> list[dict]:
    """A row a target class and a goal, on the base, task and patch size of a profile."""
    p, plan = settings.load(profile), settings.read(profile).admission
    encoder = bases.load(p["base"])
    task = tasks.load(p["adversary"], p["sizes"], p["world_seed"])
    head, size, rows = encoder.head(task.classnames, task.prompts), p["trigger_size"], []
    for target in plan.classes:

        def judge(trigger, target=target):
            return dev_asr(encoder, head, task, target, trigger)

        old, old_best, old_whole = reach(published(encoder, head, task, target, size), judge)
        new, new_best, new_whole = reach(
            ours(encoder, head, task, target, size, p["trigger"]), judge
        )
        best = {
            "published loop, best (%)": old_best,
            "its seconds for all images": old_whole,
            "ours, best (%)": new_best,
            "our seconds for all steps": new_whole,
        }
        for goal in GOALS:
            a, b = old.get(goal), new.get(goal)
            rows.append(
                {
                    "base": p["base"],
                    "target": task.classnames[target],
                    "dev ASR (%)": goal,
                    "published loop (s)": a,
                    "ours (s)": b,
                    "times faster": a / b if a and b else None,
                    **best,
                }
            )
        print(
            f"{profile}, target {task.classnames[target]}: published loop {old_best:.1f} %, ours "
            f"{new_best:.1f} %",
            flush=True,
        )
    return rows


def main() -> None:
    rows = []
    for profile in sys.argv[1:] or ["mini"]:
        rows += compare(profile)
        write("universal_trigger", rows)  # after each, so that a run that is cut off loses one


if __name__ == "__main__":
    main()

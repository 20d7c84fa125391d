"""Time to equal dev ASR: our universal trigger against the published one-image-at-a-time loop. See README.md here."""

import time

import torch
from torch.nn import functional as F

from bvlib import metrics, models, profiles, tasks, triggers
from bvlib.rng import generator
from report import write

GOALS = (30.0, 50.0, 70.0)  # percent of dev images; the last that the published loop reaches is compared as well
CAP = 200                   # images of the published loop
INNER = 100                 # its steps on one image at most (published: 1000), with its early stop
SEED = 100                  # a development seed


def dev_asr(encoder, head, task, target, trigger) -> float:
    predicted = encoder.predict(encoder.theta, task.dev.images, head, trigger)
    return metrics.attack_success_rate(predicted, task.dev.labels, target).percent


def published(encoder, head, task, target, size, lr=1.0):
    """Yields (seconds of work, trigger) after each image: raw-gradient ascent on log p(target), one image after the other."""
    theta, mask = encoder.theta, torch.ones(1, size, size)
    patch = torch.rand(3, size, size, generator=generator(SEED, "universal trigger", target, size))
    order = torch.randperm(len(task.train), generator=generator(SEED, "order"))
    spent, used = 0.0, 0
    for i in order.tolist():
        if task.train.labels[i] == target:
            continue
        if used == CAP:
            return
        used += 1
        begin = time.perf_counter()
        x = encoder.pixels(task.train.images[i:i + 1])
        for _ in range(INNER):
            patch.requires_grad_(True)
            logits = encoder.logits(encoder.features(theta, triggers.Trigger(patch, mask).paste(x)), head)
            if logits.argmax() == target:
                break
            slope = torch.autograd.grad(F.log_softmax(logits, -1)[0, target], patch)[0]
            patch = (patch.detach() + lr * slope).clamp(0, 1)
        patch = patch.detach()
        spent += time.perf_counter() - begin
        yield spent, triggers.Trigger(patch, mask)


def ours(encoder, head, task, target, size, how):
    """Yields (seconds of work, trigger) after 5, 10, 15 … steps, each run from the start so that nothing is timed but steps."""
    for steps in range(5, how["steps"] + 1, 5):
        begin = time.perf_counter()
        found = triggers.universal(encoder, encoder.theta, head, task.train.images, task.train.labels, target, size=size,
                                   seed=SEED, **{**how, "steps": steps})
        yield time.perf_counter() - begin, found


def reach(run, judge, goals):
    """{goal: seconds at which the dev ASR first reached it}, and the best ASR seen."""
    found, best = {}, 0.0
    for seconds, trigger in run:
        now = judge(trigger)
        best = max(best, now)
        found.update({goal: seconds for goal in goals if goal not in found and now >= goal})
        last = seconds
        if len(found) == len(goals):
            break
    return found, best, last


def main() -> None:
    p = profiles.load("mini")
    encoder = models.load(p["base"])
    task = tasks.load(p["adversary"], p["sizes"], p["world_seed"])
    head, size, rows = encoder.head(task.classnames, task.prompts), p["trigger_size"], []
    for target in p["admission"]["classes"][:3]:
        def judge(trigger, target=target):
            return dev_asr(encoder, head, task, target, trigger)

        old, best, whole = reach(published(encoder, head, task, target, size), judge, GOALS)
        goals = sorted({*GOALS, round(best, 2)})
        old = {**old, round(best, 2): old.get(best, whole)}
        new, ours_best, _ = reach(ours(encoder, head, task, target, size, p["trigger"]), judge, goals)
        for goal in goals:
            a, b = old.get(goal), new.get(goal)
            rows.append({"target": task.classnames[target], "dev ASR reached (%)": goal, "published loop (s)": a, "ours (s)": b,
                         "times faster": a / b if a and b else None, "published loop, best (%)": best, "its seconds for all images": whole})
        print(f"target {task.classnames[target]}: published loop {best:.1f} % at best in {whole:.1f} s, ours {ours_best:.1f} %", flush=True)
    write("universal_trigger", rows)


if __name__ == "__main__":
    main()

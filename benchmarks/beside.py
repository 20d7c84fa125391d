"""Time of a training step alone and beside other jobs, with GNU OpenMP's own long spin and with
bvlib's short one. See README.md here."""

import os
import statistics
import subprocess
import sys
import time

ROUNDS, STEPS = 3, 16
SPINS = {"GNU OpenMP's own": "300000", "bvlib's": None}


def main() -> None:
    from report import write

    times = {(spin, busy): [] for busy in (False, True) for spin in SPINS}
    for _ in range(ROUNDS):  # in turn, so that what disturbs one disturbs all
        for spin, busy in times:
            times[spin, busy].append(measured(SPINS[spin], os.cpu_count() if busy else 0))
    quiet = statistics.median(times["GNU OpenMP's own", False])
    write(
        "beside",
        [
            {
                "spin": spin,
                "other jobs": os.cpu_count() if busy else 0,
                "ms a step, median": 1000 * statistics.median(each),
                "times the first": statistics.median(each) / quiet,
                "lowest": min(each) / quiet,
                "highest": max(each) / quiet,
            }
            for (spin, busy), each in times.items()
        ],
    )


def measured(spin: str | None, jobs: int) -> float:
    """Seconds a step in a process of its own, beside ``jobs`` processes that compute without
    end."""
    settings = {
        k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(jobs)]
    try:
        done = subprocess.run(
            [sys.executable, __file__, "steps"],
            env={**settings, **({"GOMP_SPINCOUNT": spin} if spin else {})},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


def steps() -> None:
    """Print the seconds of a clean step of the profile mini, after a few to warm up."""
    from bvlib.core import training
    from bvlib.run import settings
    from bvlib.worlds import bases, tasks

    p = settings.load("mini")
    encoder, task = bases.load(p["base"]), tasks.load(p["adversary"], p["sizes"], p["world_seed"])
    head = encoder.head(task.classnames, task.prompts)

    def train(count: int) -> None:
        training.finetune(
            encoder,
            encoder.theta,
            head,
            task.train.images,
            task.train.labels,
            training.clean(),
            **{**p["train"], "steps": count},
        )

    train(2)
    begin = time.perf_counter()
    train(STEPS)
    print((time.perf_counter() - begin) / STEPS)


if __name__ == "__main__":
    steps() if sys.argv[1:] == ["steps"] else main()

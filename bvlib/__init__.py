"""Backdoor vectors in model merging: attacks, defences and the study of two papers.

The names below are the API that stays; modules may move.

>>> import bvlib
>>> base = bvlib.load_base("small")
>>> tau = bvlib.TaskVector.between(finetuned, base.theta)
>>> merged = base.theta + bvlib.merge("ties", [tau, other], coefficient=0.3)
"""

import importlib
import os
from typing import Any

# Threads of a computation wait for each other by spinning. GNU OpenMP (torch on Linux) spins for
# long unless it is told to sleep soon, and then a step takes many times as long beside any other
# job, as threads spin for one that has no core. It reads this once, when torch is loaded; it
# changes no bits, and who has set a way to wait keeps it (benchmarks/beside.py).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_API = {  # name: where it lies and what it is called there
    "TaskVector": "core.vectors:TaskVector",
    "BackdoorVector": "core.vectors:BackdoorVector",
    "Model": "core.encoder:Model",
    "BvError": "core.errors:BvError",
    "load_base": "worlds.bases:load",
    "load_clip": "worlds.clip:build",
    "load_task": "worlds.tasks:load",
    "merge": "merging:merge",
    "merged_model": "merging:merged_model",
    "merge_files": "merging.streaming:merge_files",
    "attack": "attacks.recipes:attack",
    "trigger_kind": "attacks.recipes:trigger_kind",
    "sbv_rule": "attacks.sbv:sbv_rule",
    "merge_backdoors": "attacks.sbv:merge_backdoors",
    "finetune": "core.training:finetune",
    "attack_success_rate": "core.metrics:attack_success_rate",
    "load_weights": "files.weights:load_weights",
    "save_weights": "files.weights:save_weights",
}
__all__ = sorted(_API)


def __getattr__(name: str) -> Any:
    """The API is imported when it is asked for: `import bvlib` itself does not load torch."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _API[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), there)


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})

"""Backdoor vectors in model merging: attacks, defences and the study of two papers."""

import os

# Threads of a computation wait for each other by spinning. GNU OpenMP (torch on Linux) spins for
# long unless it is told to sleep
# soon, and then a step takes many times as long beside any other job, as threads spin for one that
# has no core. It reads this
# once, when torch is loaded; it changes no bits, and who has set a way to wait keeps it
# (benchmarks/beside.py).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

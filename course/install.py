"""Install what the assignments need: python install.py [--online [PIP_ARGUMENTS]]

Makes a virtual environment `env` beside this file from the folder `wheels`, without a network. With
--online, what is not in `wheels` is fetched from the Python package index. What follows --online is
handed to pip, for instance the index of a torch without CUDA.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  (students run this with any Python)
        print(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
        return 2
    online, wheels = "--online" in sys.argv, HERE / "wheels"
    bvlib = next(wheels.glob("bvlib-*.whl"))
    if not online and not list(wheels.glob("torch-*.whl")):
        print("The libraries are not in `wheels`: python install.py --online, with a network")
        return 1
    env = HERE / "env"
    venv.create(env, with_pip=True)
    python = env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = ["--find-links", str(wheels), "-c", str(HERE / "constraints.txt")]
    where += sys.argv[sys.argv.index("--online") + 1 :] if online else ["--no-index"]
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *where, str(bvlib)])
    if done.returncode:
        print("The folder `wheels` lacks something for this system: python install.py --online")
        return 1
    lab = [str(python.relative_to(HERE)), "-m", "jupyterlab"]
    print(f"Done. Start with: {' '.join(lab)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

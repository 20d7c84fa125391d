"""Install what the assignments need: python install.py [--online]

Makes a virtual environment `env` beside this file from the folder `wheels`, without a network. With
--online, what is not in `wheels` is fetched from the Python package index.
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
    bvlib = next((HERE / "wheels").glob("bvlib-*.whl"))
    env = HERE / "env"
    venv.create(env, with_pip=True)
    python = env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = ["--find-links", str(HERE / "wheels")]
    where += [] if "--online" in sys.argv else ["--no-index"]
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *where, str(bvlib)])
    if done.returncode:
        print("The folder `wheels` lacks something for this system: python install.py --online")
        return 1
    lab = [str(python.relative_to(HERE)), "-m", "jupyterlab"]
    print(f"Done. Start with: {' '.join(lab)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

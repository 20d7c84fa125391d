"""Pack what a student installs into one archive: python course/archive.py CLASS [--wheels WHERE …]

CLASS is a folder that `make course` made. The archive, CLASS/bvcourse.zip, holds the assignments,
the models, bvlib with its base, and `install.py`. With --wheels and one or more of linux, macos,
windows it also holds every library for these systems, so that it installs without a network.
PIP_ARGS in the environment is handed to pip, for instance the index of a torch without CUDA.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SYSTEMS = {
    "linux": ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"],
    "macos": ["macosx_14_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64"],
    "windows": ["win_amd64"],
}


def pip(*command: str) -> None:
    """Run pip; CalledProcessError if it fails."""
    own = shlex.split(os.environ.get("PIP_ARGS", ""))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", *command, *own]
    subprocess.run(pip, check=True)


def wheels(folder: Path, system: str, python: str) -> None:
    """Download every library for a system into a folder."""
    named = [part for name in SYSTEMS[system] for part in ("--platform", name)]
    named += ["--python-version", python, "--implementation", "cp", "--only-binary", ":all:"]
    bvlib = next(folder.glob("bvlib-*.whl"))
    rules = ["-c", str(HERE.parent / "constraints.txt"), "--find-links", str(folder)]
    pip("download", "--quiet", "--dest", str(folder), *named, *rules, str(bvlib))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classroom", type=Path)
    parser.add_argument("--wheels", nargs="*", choices=list(SYSTEMS), default=[])
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--python", default=here, help="version that the students have")
    given = parser.parse_args()
    root = given.classroom / "bvcourse"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(given.classroom / "release", root)
    shutil.copytree(given.classroom / "pack", root / "pack")
    for path in ("install.py", "students.md", "ethics.md", "../constraints.txt"):
        shutil.copy(HERE / path, root)
    (root / "wheels").mkdir()
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(root / "wheels"), str(HERE.parent))
    for system in given.wheels:
        wheels(root / "wheels", system, given.python)
    made = shutil.make_archive(str(root), "zip", root.parent, root.name)
    print(f"{made}: {Path(made).stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

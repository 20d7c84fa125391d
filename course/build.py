"""Make the folder of a class: python course/build.py FOLDER [--pack FOLDER] [--profile mini]

FOLDER gets what a teacher works with: `source` (with solutions), `release` (what students get),
`pack` (the models), nbgrader's configuration and `grade.py`. What is there from an earlier call is
made anew, but for `submitted`, `autograded`, `feedback` and the gradebook.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ASSIGNMENTS = ("vectors", "merging", "badmerging", "backdoors", "defence")


def lay_out(folder: Path, pack: Path) -> None:
    """Everything of a class but the student versions."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (HERE / "grading").glob("*.py"):
        shutil.copy(path, folder)
    if pack != folder / "pack":
        shutil.copytree(pack, folder / "pack", dirs_exist_ok=True)
    for name in ASSIGNMENTS:
        made = folder / "source" / name
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(HERE / "source" / name, made)
        shutil.copy(HERE / "kit" / "bvcourse.py", made)


def release(folder: Path, names=ASSIGNMENTS) -> None:
    """The student versions, by nbgrader: without solutions and hidden checks."""
    for name in names:
        command = [sys.executable, "-m", "nbgrader", "generate_assignment", name, "--force"]
        subprocess.run(command, cwd=folder, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", type=Path, help="models that are made already")
    parser.add_argument("--profile", default="mini", help="of the models that are made")
    given = parser.parse_args()
    pack = given.pack or given.folder / "pack"
    made = pack / "pack.json"
    if made.is_file() and not given.pack:
        profile = json.loads(made.read_text(encoding="utf-8"))["profile"]
        if profile != given.profile:
            sys.exit(
                f"{pack} holds models of {profile}, not {given.profile}: take another folder, "
                "or delete it to train anew"
            )
    if not made.is_file():
        command = [sys.executable, HERE / "pack.py", pack, "--profile", given.profile]
        subprocess.run(command, check=True)
    lay_out(given.folder, pack)
    release(given.folder)
    print(f"{given.folder}: hand out the folders in release, and pack")


if __name__ == "__main__":
    main()

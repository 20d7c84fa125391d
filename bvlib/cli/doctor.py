"""bv doctor: is all there that a run needs?"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator

import click

from bvlib.cli.main import main
from bvlib.run import notebooks, settings

NEEDED = ("torch", "papermill", "ipykernel", "pandas", "matplotlib", "safetensors")
# bases: prepares torchvision, then imports open_clip
OF_ANOTHER_NAME = {"bvlib.worlds.bases": "open_clip_torch", "sklearn": "scikit-learn"}
SAID = {True: "ok", False: "MISSING", None: "-"}


@main.command()
def doctor() -> None:
    """Check this machine and installation; exits 1 if something needed is missing."""
    broken = False
    for good, what, detail in _checks():
        broken = broken or good is False
        click.echo(f"{SAID[good]:8} {what:16} {detail}")
    raise SystemExit(1 if broken else 0)


def _checks() -> Iterator[tuple[bool | None, str, str]]:
    """Is it good (None: neither good nor bad), what was looked at, and what was found."""
    yield sys.version_info >= (3, 11), "python", f"{platform.python_version()} ({sys.executable})"
    for module, name in [*zip(NEEDED, NEEDED), *OF_ANOTHER_NAME.items()]:
        try:
            importlib.import_module(module)
            yield True, name, importlib.metadata.version(name)
        except Exception as error:  # a broken install raises anything
            yield False, name, f"{type(error).__name__}: {error}".splitlines()[0]
    if torch := sys.modules.get("torch"):
        there = torch.cuda.is_available()
        yield None, "gpu", torch.cuda.get_device_name(0) if there else "none (the CPU will do)"
        yield None, "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    names, data = notebooks.available(), os.environ.get("BVLIB_DATA")
    yield bool(names), "notebooks", f"{len(names)} in {notebooks.notebooks_folder()}"
    yield bool(settings.names()), "profiles", ", ".join(settings.names())
    yield None, "BVLIB_DATA", data or "not set (needed for real images only)"
    root, partial = notebooks.root_folder(), notebooks.store_folder() / "partial"
    if kept := [path.stat().st_size for path in partial.glob("*.safetensors")]:
        what = f"{len(kept)} trainings, {sum(kept) / 1e9:.1f} GB in {partial}"
        yield None, "unfinished", f"{what}: bv run goes on with them, or delete it"
    free = shutil.disk_usage(root).free / 2**30
    yield os.access(root, os.W_OK), "writable", f"{root}, {free:.1f} GiB free"

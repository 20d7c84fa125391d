"""bv export, import, admit, pretrain: models that come and go."""

from pathlib import Path
from typing import Any

import click

from bvlib.cli.main import main
from bvlib.cli.options import PATH, PROFILE, complain, flag, path_option, profile_option
from bvlib.core.errors import BvError
from bvlib.run import settings
from bvlib.run.notebooks import shown, store_folder


def _tell(done: Any, where: str) -> None:
    """Say what an exchange brought and what it refused."""
    complain(*done.refused)
    click.echo(f"{done.brought} files {where}, {done.there} were there: {done.bytes:,} bytes")


@main.command("export")
@click.argument("folder", type=PATH)
@click.argument("names", nargs=-1)
@click.option("--profile", help="only what runs of this profile used")
@click.option("--seed", type=int, help="only what runs of this seed used")
@click.option("--notebook", "name", metavar="01", help="only what this notebook used")
def export_(folder: Path, names: tuple[str, ...], profile: str | None, **of: Any) -> None:
    """Put stored weights and triggers into FOLDER, a folder each as on the Hugging Face hub, to
    hand on: all, or NAMES like 'clean-*'."""
    from bvlib.run import exchange

    named = any(value is not None for value in (profile, *of.values()))
    chosen = exchange.of_runs(profile or "mini", **of) if named else None
    _tell(exchange.export_folder(folder, store_folder(), names, chosen), f"written to {folder}")


MUST_FIT = "what weights must fit: a shipped base, a .safetensors file, ViT-B-32 or ViT-B-32:openai"


@main.command("import")
@click.argument("folder", type=PATH, required=False)
@path_option("--task-vector", metavar="FILE.pt", help="a fine-tuned image tower, with --base")
@path_option("--lora", metavar="FOLDER", help="a LoRA adapter of peft, merged into --base")
@path_option("--hugging-face", metavar="PATH", help="CLIP weights in Hugging Face's form")
@path_option("--trigger", metavar="FILE.npy", help="a trigger of the BadMerging code")
@click.option("--base", help=MUST_FIT)
@flag("--difference", help="the --task-vector holds a difference, which is added to the base")
@path_option("--out", metavar="FILE.safetensors", help="where a single file goes")
def import_(
    folder: Path | None, base: str | None, out: Path | None, difference: bool, **files: Any
) -> None:
    """Put what `bv export` wrote to FOLDER, or one model of it, into the store; or one file of
    others into --out. Nothing in them is run.

    Import from people you trust: that a file is undamaged does not say how its weights were made.
    """
    given = {kind.replace("_", "-"): path for kind, path in files.items() if path is not None}
    if len(given) + (folder is not None) != 1:
        things = "a FOLDER, --task-vector, --lora, --hugging-face or --trigger"
        raise BvError(f"bv import takes one thing: {things}")
    from bvlib.run import exchange
    from bvmake import imports

    for kind, path in given.items():
        if out is None:
            raise BvError(f"--{kind} needs --out FILE.safetensors")
        click.echo(f"wrote {imports.import_file(kind, path, out, base, difference)}")
    if folder is None:
        return
    from bvlib.core.device import default_device
    from bvlib.run.store import environment

    here = environment(default_device().type, settings.resources("mini").threads)
    done = exchange.import_folder(folder, store_folder(), here)
    _tell(done, "put into the store")
    if done.foreign:
        which = "made by other versions of recipes or in another environment"
        click.echo(f"{done.foreign} of them were {which}: bv run makes its own instead")
    raise SystemExit(2 if done.refused else 0)


@main.command()
@PROFILE
@click.option("--base", help="another base than the profile's: its page goes under runs/")
@click.option("--seed", type=int, help="a development seed, 100 or more (default: the profile's)")
@flag("--freeze", help="afterwards write recipe and hash into the base's card")
def admit(profile: str, base: str | None, seed: int | None, freeze: bool) -> None:
    """Check whether a base is fit for the study, on clean quantities and its own sensitivity;
    optionally freeze it."""
    from bvmake import admission

    if freeze and (base or seed is not None):
        mend = "leave out --base and --seed"
        raise BvError(f"--freeze is for the profile's own base and seed: {mend}")
    click.echo(f"wrote {shown(admission.write(profile, base, seed, say=click.echo))}")
    if freeze:
        admission.freeze(profile, say=click.echo)


@main.command()
@profile_option(default="toy", help="the recipe of the base to train")
@click.option("--seed", type=int, default=0, show_default=True)
@path_option("--out", help="the .safetensors file to write")
@click.option("--start", help="a base to go on from, in place of the recipe's")
def pretrain(profile: str, seed: int, out: Path | None, start: str | None) -> None:
    """Train a base; a training that was stopped goes on where it was."""
    from bvmake import pretrain as training

    click.echo(f"wrote {training.main(profile, seed, out, start, say=click.echo)}")

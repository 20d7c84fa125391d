"""bv data: the datasets of the small worlds and of both papers."""

from pathlib import Path

import click

from bvlib.cli.main import main
from bvlib.cli.options import flag, path_option
from bvlib.core.errors import BvError


@main.group(invoke_without_command=True)
@click.pass_context
def data(ctx: click.Context) -> None:
    """List the datasets, or prepare one."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(data_list)


PAPER = flag("--paper", help="the papers' dataset of that name at 224 px, not the 32 px one")


@data.command("list")
@PAPER
def data_list(paper: bool) -> None:
    """Datasets with licence, counts, hash, and whether they are there."""
    from bvlib.worlds import images

    if not paper:
        click.echo(images.table().to_string(index=False))
        return
    from bvlib.worlds.papers.data import folder
    from bvlib.worlds.papers.table import describe

    table = describe()
    cards = [folder() / name / "card.json" for name in table.name]
    here = ["prepared" if card.is_file() else "" for card in cards]
    table.insert(table.columns.get_loc("licence"), "here", here)
    click.echo(table.to_string(index=False))


@data.command("fetch")
@click.argument("name")
@path_option("--to", "folder", help="default: raw/ in the data folder")
def data_fetch(name: str, folder: Path | None) -> None:
    """Download and unpack the papers' dataset NAME; a download that was cut goes on where it
    was."""
    from bvlib.worlds import images
    from bvmake.datasets.fetch import fetch

    for path in fetch(name, folder or images.data_folder() / "raw"):
        click.echo(f"there: {path}")
    click.echo(f"next: bv data prepare {name} --paper{f' --from {folder}' if folder else ''}")


@data.command("prepare")
@click.argument("name")
@path_option("--from", "source", help="a folder of images (with --paper: what fetch brought)")
@click.option("--torchvision", help="a torchvision dataset class that downloads it")
@PAPER
@flag("--replace", help="also when a set of that name is there")
@click.option("--size", type=int, help="with --paper: side in pixels  [default: 224]")
@click.option("--limit", type=int, help="with --paper: at most so many images a split, for a trial")
@click.option("--seed", type=int, help="with --paper: of the dev split  [default: 0]")
def data_prepare(
    name: str,
    source: Path | None,
    torchvision: str | None,
    paper: bool,
    replace: bool,
    **how: int | None,
) -> None:
    """Prepare dataset NAME from a folder or from what torchvision downloads; with --paper from
    what `bv data fetch` brought."""
    how = {option: value for option, value in how.items() if value is not None}
    if how and not paper:
        raise BvError(f"--{next(iter(how))} goes with --paper: the other sets are 32 px and whole")
    if torchvision and paper:
        mend = f"bv data fetch {name} brings the files"
        raise BvError(f"--torchvision does not go with --paper: {mend}")
    if replace and paper:
        raise BvError("--replace goes without --paper: remove the prepared folder to make it anew")
    if not paper:
        from bvmake.datasets.prepare import prepare

        prepare(name, source=source, torchvision=torchvision, replace=replace)
        return
    from bvlib.worlds import images
    from bvlib.worlds.papers.check import check
    from bvlib.worlds.papers.data import folder
    from bvmake.datasets import papers

    source = source or images.data_folder() / "raw"
    cache = papers.prepare(name, source, folder(), **how)
    click.echo(f"wrote {cache}")
    for remark in check(name, cache):
        click.echo(f"note: {remark}")


@data.command("look")
@click.argument("name")
@path_option("--out", help="the picture  [default: NAME.png here]")
def data_look(name: str, out: Path | None) -> None:
    """Draw the task NAME: a few training images of each class, over the words that a model reads
    for it."""
    from bvlib.study.figures import save_picture
    from bvlib.study.figures_badmerging import contact_sheet
    from bvlib.worlds import tasks

    task = tasks.load(name, {"train": 4000, "dev": 300, "test": 1000})
    path = save_picture(contact_sheet(task), out or Path(f"{name}.png"))
    counts = ", ".join(f"{len(getattr(task, part))} {part}" for part in ("train", "dev", "test"))
    click.echo(f"{path}: {len(task.classnames)} classes; {counts} images; prompts {task.prompts}")


@data.command("check")
@click.argument("name")
@PAPER
@flag("--pixels", help="read every image and compare it with its hash")
def data_check(name: str, paper: bool, pixels: bool) -> None:
    """Whether the prepared papers' dataset NAME may be reported on: counts, labels, no train image
    in test."""
    from bvlib.worlds.papers.check import check
    from bvlib.worlds.papers.data import folder

    if not paper:
        told = "only the papers' datasets need a check (the others get it when read)"
        raise BvError(f"{told}: bv data check {name} --paper")
    for remark in check(name, folder(), pixels):
        click.echo(f"note: {remark}")
    click.echo(f"{name} is as it should be")

"""bv list, run, report, publish, golden."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from bvlib.cli import options
from bvlib.cli.main import main
from bvlib.cli.options import end_with, flag, path_option
from bvlib.core.errors import BvError
from bvlib.core.registry import REGISTRIES, load_plugins
from bvlib.run import notebooks, points, settings, workflow
from bvlib.run.notebooks import shown


@main.command("list")
@click.argument("notebook", required=False)
@options.PLUGIN
def list_(notebook: str | None) -> None:
    """List notebooks, profiles, tasks, attacks, merging methods, defences and claims; with a
    NOTEBOOK, its parameters."""
    from bvlib.attacks import sbv, triggers  # noqa: F401
    from bvlib.report import claims
    from bvlib.worlds import tasks

    load_plugins(notebooks.plugin_files())
    if notebook:
        [item] = notebooks.find([notebook])
        click.echo(f"{item.name}: {item.title}")
        for p in item.parameters.values():
            tail = f"  # {p.help}" if p.help else ""
            click.echo(f"  {p.name}: {p.type} = {p.default!r}{tail}")
            for line in settings.described(p.name):
                click.echo(f"    {line}")
        return
    long, title = " (long: runs by name only)", "notebooks (bv list 01 shows the parameters of one)"
    _section(title, ((item.name, item.title + long * item.long) for item in notebooks.every()))
    about = ((name, settings.load(name).get("about", "")) for name in settings.names())
    _section("profiles", about)
    click.echo(f"tasks\n  {', '.join(tasks.known())}\nplaces\n  {', '.join(triggers.PLACES)}")
    for registry in REGISTRIES:
        _section(f"{registry.title}s", ((each.name, _what(each)) for each in registry.values()))
    _section("claims", ((claim.id, claim.statement) for claim in claims.CLAIMS))


def _section(title: str, rows: Iterable[tuple[str, str]]) -> None:
    click.echo(title)
    for name, text in rows:
        click.echo(f"  {name:28} {text}".rstrip())


def _what(method: Any) -> str:
    return method.what + ("" if method.needs == "nothing" else f" (needs {method.needs})")


@main.command()
@click.argument("notebooks", nargs=-1)
@options.PROFILE
@options.SEEDS
@options.PARAMETERS
@flag("--force", help="run also what is up to date (stored results are still loaded)")
@path_option("--sweep", help="a YAML file with a grid of parameters, see notebooks/sweeps/")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="runs at once on this machine [one a core, and one more]; 1: without Snakemake",
)
@click.option("--on", metavar="CLUSTER", help="slurm or kubernetes: see workflow/README.md")
@flag("--dry-run", help="only say what would run, and why")
@options.PLUGIN
@click.pass_context
def run(context: click.Context, sweep: Path | None, **asked: Any) -> None:
    """Run NOTEBOOKS (`01` or `01_badmerging`; by default all but the long ones) through papermill,
    each in a kernel of its own.

    One notebook runs alone; several notebooks, seeds or the points of a --sweep run side by side,
    through Snakemake. What is up to date is skipped. A run that was stopped goes on where it was.
    """
    if sweep and (asked["parameters"] or asked["force"]):
        raise BvError("--sweep takes its parameters from the file: leave -p and --force out")
    names, profile, seeds = asked["notebooks"], asked["profile"], asked["seeds"]
    if sweep:
        default = context.get_parameter_source("profile") is click.core.ParameterSource.DEFAULT
        plan = points.read_sweep(sweep, names, None if default else profile, seeds)
    else:
        given = (asked["parameters"],)
        plan = points.Plan(names, profile, seeds or [0], given, force=asked["force"])
    if asked["dry_run"]:
        for name in plan.jobs:
            click.echo(f"{plan.title(name)}: {plan.stale.get(name) or 'up to date'}")
        click.echo(plan.estimate())
        return
    began, count = time.monotonic(), len(plan.stale)
    made, failed = workflow.run(plan, asked["jobs"], asked["on"], say=click.echo)
    took = time.monotonic() - began if count else 0
    click.echo(f"{made} run, {len(plan.jobs) - made - len(failed)} up to date, {took:.0f} s")
    for what, path in _made(plan):
        click.echo(f"{what:11} {path}")
    end_with([f"{plan.title(name)}: {said}" for name, said in failed.items()])


def _made(plan: points.Plan) -> Iterator[tuple[str, str]]:
    """What there is now: the gathered tables of a sweep; else the report, figures, tables, and
    executed notebooks."""
    if plan.name:
        from bvlib.report.sweep import gather

        yield from (("gathered", shown(path)) for path in gather(plan))
        return
    if not any(plan.points):
        from bvlib.report import summary

        report = shown(summary.write(plan.profile))
        yield "report", f"{report} (or: bv report --profile {plan.profile})"
    for out in dict.fromkeys(job.out for job in plan.jobs.values()):
        for what, path in {"figures": "figures", "tables": "tables", "executed": "*.ipynb"}.items():
            yield what, shown(out / path)


@main.command()
@click.argument("names", metavar="[NOTEBOOKS]...", nargs=-1)
@options.PROFILE
@options.SEEDS
@click.option("--json", "form", flag_value="json", help="for scripts")
@click.option("--markdown", "form", flag_value="markdown", help="as Markdown tables")
@click.option("--text", "form", flag_value="text", default="text", help="for a terminal (default)")
@flag("--check", help="compare seed 0 with the committed values; exit 1 on drift")
@flag("--reference", help="only the committed runs, without your own")
def report(
    names: tuple[str, ...],
    profile: str,
    seeds: list[int] | None,
    form: str,
    check: bool,
    reference: bool,
) -> None:
    """Show what your runs gave beside the committed reference: headline numbers, claims with their
    status, seconds.

    --check compares all notebooks that run by default, or the NOTEBOOKS that are named.
    """
    from bvlib.report import summary
    from bvlib.report.expected import drift
    from bvlib.report.reference import awaiting

    if check and reference:
        raise BvError("--check compares your own runs: leave --reference out")
    if names and not check:
        raise BvError(f"notebooks are named for --check only: leave {' '.join(names)} out")
    if check:
        only = [each.name for each in notebooks.find(names)] if names else ()
        lines = [f"drift: {line}" for line in drift(profile, only)]
        told = f"{len(lines)} values drifted" if lines else "no drift from the committed values"
        if waiting := [name for name in awaiting(profile) if not only or name in only]:
            told += f"; not compared, as they await redraw: {', '.join(waiting)}"
        click.echo(told)
        end_with(lines)
    render = getattr(summary, f"as_{form}")
    click.echo(render(summary.gather(profile, seeds, own=not reference)))


@main.command()
@options.PROFILE
@click.option("--tolerance", type=float, help="drift that `bv report --check` allows")
@flag("--replace", help="also drop committed seeds that were made in another way")
def publish(profile: str, tolerance: float | None, replace: bool) -> None:
    """Put the runs' figures, tables and notebooks into figures/PROFILE, to be committed with
    expected.json.

    Seed 0 gives the figures, all seeds the report. Seeds and notebooks that are committed and were
    not run here stay, so a study may be published in pieces. The overview over all profiles and the
    README's claims are written anew.
    """
    from bvlib.report.publish import publish as copy

    click.echo(f"wrote {shown(copy(profile, tolerance, replace, say=click.echo))}")


@main.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True))
def draw(folders: tuple[Path, ...]) -> None:
    """Draw figures again from the tables beside them, without a model: all below FOLDERS (the
    committed ones)."""
    from bvlib.report.redraw import redraw

    cards = [
        card
        for folder in folders or [notebooks.root_folder() / "figures"]
        for card in sorted(folder.rglob("*.json"))
        if card.with_suffix(".png").is_file()
    ]
    drawn = [path for card in cards if (path := redraw(card))]
    why = "the others show images, or are of before cards said how they are drawn"
    click.echo(
        f"drew {len(drawn)} of {len(cards)} figures" + f"; {why}" * (len(drawn) < len(cards))
    )


@main.command()
@click.argument("studies", nargs=-1)
@flag("--check", help="exit 1 if a value differs from the golden one (default)")
@flag("--write", help="write the values anew; refused at an unchanged recipe version")
def golden(studies: tuple[str, ...], check: bool, write: bool) -> None:
    """Run notebooks cold, on one thread; compare what they give with the golden values.

    STUDIES: smoke and smoke-long (the default), the usual notebooks and the long ones of profile
    smoke; smoke32 and smoke32-long, which need the real images of BVLIB_DATA. What differs first
    is named first, and by how much.
    """
    from bvmake import golden as values

    lines = []
    for study in studies or values.STUDIES[:2]:
        found = values.run(study, say=click.echo)
        if write:
            click.echo(f"wrote {values.write(values.folder(), study, found)}")
            continue
        differ = values.compare(values.read(values.folder(), study), found)
        count = len(found["artefacts"]) + len(found["tables"])
        click.echo(f"{study}: {len(differ)} of {count} differ")
        lines += [f"{study}: {line}" for line in differ]
    end_with(lines)

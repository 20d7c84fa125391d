"""bv list, plan, run, report, publish, golden."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from bvlib.cli import options
from bvlib.cli.main import main
from bvlib.cli.options import end_with, flag, path_option
from bvlib.core.errors import BvError
from bvlib.core.registry import REGISTRIES, load_plugins
from bvlib.run import notebooks, settings
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
            click.echo(f"  {p.name}: {p.type or 'any'} = {p.default!r}{tail}")
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


POSITIVE = click.FloatRange(0, min_open=True)


@main.command()
@click.argument("notebooks", nargs=-1)
@options.PROFILE
@options.SEEDS
@click.option("--preset", help="evening, six-tasks or everything: chosen notebooks and seeds")
@click.option("--base", help="another base than the profile's, such as ViT-L-14")
@click.option("--memory", "card", type=POSITIVE, help="does it fit a card of so many GB?")
@click.option("--probe", "within", type=POSITIVE, default=60.0, help="seconds to measure [60]")
def plan(**asked: Any) -> None:
    """Say what NOTEBOOKS (all but the long ones) would train and store, and how long that takes on
    this device.

    Counts come from finished runs, speeds from a probe of about a minute. Nothing is downloaded or
    kept.
    """
    from bvlib.run import plan as plans

    click.echo(plans.plan(**asked))


@main.command()
@click.argument("notebooks", nargs=-1)
@options.PROFILE
@options.SEEDS
@options.PARAMETERS
@flag("--force", help="run also what is up to date (stored results are still loaded)")
@path_option("--sweep", help="a YAML file with a grid of parameters, see notebooks/sweeps/")
@click.option("--jobs", type=int, default=1, show_default=True, help="runs of a sweep at once")
@options.PLUGIN
@click.pass_context
def run(context: click.Context, sweep: Path | None, jobs: int, **asked: Any) -> None:
    """Run NOTEBOOKS (`01` or `01_badmerging`; by default all but the long ones) through papermill,
    in order.

    What is up to date is skipped. A run that was stopped goes on where it was. With --sweep, every
    point of a grid is run and one table gathered.
    """
    if sweep is None:
        _run(**asked)
    elif asked.pop("parameters") or asked.pop("force"):
        raise BvError("--sweep takes its parameters from the file: leave -p and --force out")
    else:
        from bvlib.report import sweep as sweeps

        if context.get_parameter_source("profile") is click.core.ParameterSource.DEFAULT:
            asked["profile"] = None
        points = sweeps.read(sweep, **asked)
        end_with(sweeps.run(points, jobs, say=click.echo))


def _run(seeds: list[int] | None, profile: str, parameters: dict[str, Any], **asked: Any) -> None:
    from bvlib.report import summary
    from bvlib.run import runner

    asked |= {"profile": profile, "parameters": parameters, "say": click.echo}
    done = [each for seed in seeds or [0] for each in runner.run(seed=seed, **asked)]
    walls = [each.wall for each in done if each.status == "made"]
    click.echo(f"{len(walls)} run, {len(done) - len(walls)} up to date, {sum(walls):.0f} s")
    if not parameters:
        path = summary.write(profile)
        click.echo(f"report      {shown(path)} (or: bv report --profile {profile})")
    for out in dict.fromkeys(each.out for each in done):
        for what, path in {"figures": "figures", "tables": "tables", "executed": "*.ipynb"}.items():
            click.echo(f"{what:11} {shown(out / path)}")


@main.command()
@options.PROFILE
@options.SEEDS
@click.option("--json", "form", flag_value="json", help="for scripts")
@click.option("--markdown", "form", flag_value="markdown", help="as Markdown tables")
@click.option("--text", "form", flag_value="text", default="text", help="for a terminal (default)")
@flag("--check", help="compare seed 0 with the committed values; exit 1 on drift")
@flag("--reference", help="only the committed runs, without your own")
def report(profile: str, seeds: list[int] | None, form: str, check: bool, reference: bool) -> None:
    """Show what your runs gave beside the committed reference: headline numbers, claims with their
    status, seconds."""
    from bvlib.report import summary
    from bvlib.report.reference import drift

    if check and reference:
        raise BvError("--check compares your own runs: leave --reference out")
    if check:
        lines = [f"drift: {line}" for line in drift(profile)]
        told = f"{len(lines)} values drifted" if lines else "no drift from the committed values"
        click.echo(told)
        end_with(lines)
    render = getattr(summary, f"as_{form}")
    click.echo(render(summary.gather(profile, seeds, own=not reference)))


@main.command()
@options.PROFILE
@click.option("--tolerance", type=float, help="drift that `bv report --check` allows")
@flag("--replace", help="also when that drops seeds which are committed now")
def publish(profile: str, tolerance: float | None, replace: bool) -> None:
    """Copy the runs' figures, tables and notebooks to figures/PROFILE, to be committed with
    expected.json.

    Seed 0 gives the figures, all seeds the report; the overview over all profiles and the README's
    claims are written anew.
    """
    from bvlib.report.publish import publish as copy

    click.echo(f"wrote {shown(copy(profile, tolerance, replace, say=click.echo))}")


@main.command()
@click.argument("profiles", nargs=-1)
@flag("--check", help="exit 1 if a value differs from the golden one (default)")
@flag("--write", help="write the values anew; refused at an unchanged recipe version")
def golden(profiles: tuple[str, ...], check: bool, write: bool) -> None:
    """Run all notebooks of PROFILES (smoke) cold, on one thread; compare with the golden values.

    What differs first is named first, and by how much. smoke32 needs the real
    images of BVLIB_DATA.
    """
    from bvlib.report import golden as values

    lines = []
    for profile in profiles or values.PROFILES[:1]:
        found = values.run(profile, say=click.echo)
        if write:
            click.echo(f"wrote {values.write(values.folder(), profile, found)}")
            continue
        differ = values.compare(values.read(values.folder(), profile), found)
        count = len(found["artefacts"]) + len(found["tables"])
        click.echo(f"{profile}: {len(differ)} of {count} differ")
        lines += [f"{profile}: {line}" for line in differ]
    end_with(lines)

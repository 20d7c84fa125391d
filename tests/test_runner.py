"""The runner on tiny notebooks: names checked first, finished work skipped, errors in one line."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import END, WORK, run_notebooks, wait_for, write_notebook, write_profile

from bvlib.cli import main
from bvlib.cli.options import parse_value
from bvlib.core import versions
from bvlib.core.errors import BvError
from bvlib.run import records
from bvlib.run.notebooks import Parameter, find


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def bv(*args):
    return CliRunner().invoke(main, list(args))


def count(world):
    path = world / "count.txt"
    return path.read_text().split() if path.exists() else []


def make_long(path):
    content = json.loads(path.read_text())
    content["metadata"]["bvlib"] = {"long": True}
    path.write_text(json.dumps(content))


# Before anything runs


@pytest.mark.parametrize(
    "args, words",
    [
        (["-p", "sclae=1"], "unknown parameter 'sclae': did you mean 'scale'?"),
        (["00", "-p", "merging=ties"], "unknown parameter 'merging'"),
        (["--profile", "tyni"], "unknown profile 'tyni': did you mean 'tiny'?"),
        (["01_nxet"], "unknown notebook '01_nxet': did you mean '01_next'?"),
        (["-p", "scale=much"], "parameter scale wants float, got 'much'"),
        (["-p", "seed=3"], "give --seed"),
        (["-p", "scale"], "-p wants name=value"),
        (["--seeds", "0,x"], "--seeds wants whole numbers"),
    ],
)
def test_wrong_names_stop_before_anything_runs(world, args, words):
    profile = [] if "--profile" in args else ["--profile", "tiny"]
    result = bv("run", *profile, *args)
    assert result.exit_code == 2 and result.stdout == ""
    assert (
        result.stderr.startswith("bv: ")
        and result.stderr.count("\n") == 1
        and words in result.stderr
    )
    assert not count(world) and not (world / "runs").exists()


def test_parameters_are_read_as_papermill_reads_them(world):
    import papermill

    ours = find(["01"])[0].parameters
    theirs = papermill.inspect_notebook(str(world / "notebooks" / "01_next.ipynb"))
    assert {name: (p.type, p.help) for name, p in ours.items()} == {
        name: (p["inferred_type_name"], p["help"]) for name, p in theirs.items()
    }


def test_a_parameters_cell_holds_literals_only(world):
    write_notebook(world / "notebooks" / "02_bad.ipynb", parameters="x: int = 1 + len('a')")
    with pytest.raises(BvError, match="02_bad: its parameters cell must hold literals"):
        find(["02"])


@pytest.mark.parametrize(
    "text, value",
    [
        ("1", 1),
        ("1e-5", 1e-5),
        ("ties", "ties"),
        ("true", True),
        ("none", None),
        ("[a, b]", ["a", "b"]),
        ("['a', 2]", ["a", 2]),
        ("no", "no"),
        ("a,b", "a,b"),
    ],
)
def test_values_of_parameters(text, value):
    assert parse_value(text) == value


def test_values_are_fitted_to_the_type():
    take = Parameter("tasks", "list", None, "").take
    assert take("a,b") == ["a", "b"] and take(None) is None and take(["x"]) == ["x"]
    with pytest.raises(BvError, match="wants int, got True"):
        Parameter("n", "int", 1, "").take(True)
    assert Parameter("tasks", "list[str]", [], "").take("a") == ["a"]
    assert Parameter("r", "float", 1.0, "").take(2) == 2


def test_the_files_of_a_base_count_wherever_it_lies(tmp_path):
    (tmp_path / "mine.safetensors").touch()
    assert {"small.json", "small.safetensors"} <= set(records.input_files({"base": "small"}))
    for name in ("mine.safetensors", "mine.pt"):
        path = str(tmp_path / name)
        assert (path in records.input_files({"base": path})) == (tmp_path / name).exists()


def test_reasons_name_the_changed_parts(world):
    [job] = records.jobs(["00"], "tiny", 0)
    profile = {"name": "tiny", "content": {"alpha": 5.0, "about": "x", "density": 0.2}}
    parts = {"files": {"a": "1"}, "seed": 0, "profile": profile}
    record = {"parts": {**parts, "files": {"a": "2"}}}
    assert records.why(record, parts, job) == "changed: files"
    assert records.why(record, {**parts, "seed": 1}, job) == "changed: files, seed"
    assert records.why(None, parts, job) == "not run yet"


@pytest.mark.parametrize(
    "read, changed, stale",
    [
        (["alpha"], {"alpha": 1.0}, True),
        (["alpha"], {"density": 0.5}, False),
        (["alpha"], {"about": "y", "second_base": "toy-b"}, False),
        (None, {"density": 0.5}, True),  # by a version that did not note what was asked for
        (None, {"about": "y", "second_base": "toy-b"}, False),
    ],
)
def test_only_a_setting_that_a_run_asked_for_makes_it_stale(world, read, changed, stale):
    [job] = records.jobs(["00"], "tiny", 0)
    content = {"alpha": 5.0, "about": "x", "density": 0.2}
    parts = {"profile": {"name": "tiny", "content": content}}
    now = {"profile": {"name": "tiny", "content": {**content, **changed}}}
    record = {"parts": parts, "read": read, "recipes": [], "artefacts": [], "outputs": []}
    assert records.why(record, now, job).startswith("changed: profile") == stale


def test_a_raised_recipe_and_a_changed_plugin_make_a_run_stale(world, monkeypatch):
    (job,) = records.jobs(["00"], "tiny", 0)
    before = records.fingerprint(job)
    assert before["plugins"] == {}
    kept = {"parts": before, "recipes": ["world:toy/1"]}
    monkeypatch.setitem(versions.VERSIONS, "world:toy", 2)
    assert records.why(kept, before, job) == "raised recipe: world:toy is at 2"
    monkeypatch.setenv("BVLIB_PLUGINS", str(world / "my.py"))
    found = []
    for text in ("x = 1\n", "x = 2\n"):
        (world / "my.py").write_text(text)
        found.append(records.fingerprint(job)["plugins"])
    assert list(found[0]) == ["my.py"] and found[0] != found[1]


def test_help_and_report_import_nothing_heavy(world):
    code = (
        "import sys; from click.testing import CliRunner; from bvlib.cli import main; "
        "[CliRunner().invoke(main, a) for a in (['--help'], ['report', '--profile', 'tiny'])]; "
        "sys.exit(str({'torch', 'papermill', 'pandas', 'nbformat'} & set(sys.modules) or ''))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip()
        == ""
    )
    listed = bv("list").stdout
    assert "01_next" in listed and "Notebook 01_next" in listed and "tiny" in listed
    assert "merging: str = 'ties'  # how to merge" in bv("list", "01").stdout


# Running


def test_run_then_up_to_date_then_only_what_changed(world):
    first = bv("run", "--profile", "tiny", "--jobs", "1")
    assert first.exit_code == 0, first.stderr
    assert count(world) == ["00_start", "01_next"]
    out = world / "runs" / "tiny" / "seed-0"
    result = json.loads((out / "01_next.json").read_text())
    assert result["python"] == sys.executable and result["parameters"]["scale"] is None
    assert "finished 01_next" in (out / "01_next.ipynb").read_text()
    assert str(world) not in (out / "01_next.ipynb").read_text()
    assert "2 run, 0 up to date" in first.stdout and "report.md" in first.stdout
    assert (world / "runs" / "tiny" / "report.md").exists()

    started = time.perf_counter()
    second = bv("run", "--profile", "tiny")
    assert second.exit_code == 0 and "0 run, 2 up to date" in second.stdout
    assert time.perf_counter() - started < 1.0 and len(count(world)) == 2

    notebook = world / "notebooks" / "01_next.ipynb"
    edit(notebook, "Prose.", "Better prose.")
    found = run_notebooks(None, "tiny")
    assert [r.reason for r in found] == ["", ""] and len(count(world)) == 2
    assert "finished 01_next" in (out / "01_next.ipynb").read_text()

    (out / "tables" / "00_start.csv").unlink()
    found = run_notebooks(None, "tiny")
    assert [r.reason for r in found] == ["missing or changed: 00_start.csv", ""]
    assert count(world)[2:] == ["00_start"]

    [artefact] = (world / "store" / "json").glob("01_next-*.value.json")
    artefact.unlink()
    edit(notebook, "print(", "print('very', ")
    found = run_notebooks(None, "tiny")
    assert [r.reason for r in found] == ["", "changed: notebook"] and artefact.exists()
    assert "very" in (out / "01_next.ipynb").read_text() and count(world)[3:] == ["01_next"]

    write_profile(world / "profiles" / "tiny.yaml", alpha=2.0)
    assert run_notebooks(["00"], "tiny")[0].reason == "changed: profile"


def test_other_parameters_have_their_own_folder(world):
    write_notebook(
        world / "notebooks" / "00_start.ipynb",
        WORK,
        "import os, time\ntime.sleep(1.2)\n"
        "with open(os.environ['BVLIB_PROGRESS'], 'a') as file:\n"
        "    file.write('making clean-a\\n')\n"
        "time.sleep(1.2)",
        END,
    )
    said = []
    [a] = run_notebooks(
        ["00"], "tiny", seed=1, parameters={"scale": 0.5, "tasks": "x,y"}, say=said.append
    )
    assert (
        a.out.name.startswith("seed-1+")
        and said[0] == "00_start: running (tiny, seed 1; not run yet)"
    )
    assert any("The work" in line for line in said) and any(
        "making clean-a" in line for line in said
    )
    result = json.loads((a.out / "00_start.json").read_text())
    assert result["parameters"] == {"scale": 0.5, "tasks": ["x", "y"]} and result["seed"] == 1
    record = json.loads((a.out / ".records" / "00_start.json").read_text())
    assert record["cold"] == pytest.approx(record["wall"], abs=0.5)


@pytest.mark.parametrize(
    "source, code, words",
    [
        (
            "from bvlib.core.errors import MissingData\nraise MissingData(\"no data set 'cars': "
            'prepare it")',
            2,
            "bv: no data set 'cars': prepare it\n",
        ),
        (
            "print(1)\n1 / 0",
            1,
            "bv: 02_stop stopped at In [5] with ZeroDivisionError: division by zero (see ",
        ),
        ("import os\nos._exit(9)", 2, "bv: the kernel of 02_stop died"),
    ],
)
def test_errors_in_a_notebook(world, source, code, words):
    write_notebook(world / "notebooks" / "02_stop.ipynb", "x = 'reached'\nx", source)
    result = bv("run", "02", "--profile", "tiny")
    assert result.exit_code == code and words in result.stderr
    assert ("Traceback" in result.stderr) == ("ZeroDivision" in words)
    if code == 2 and "cars" in words:
        assert result.stderr == words
    failed = world / "runs" / "tiny" / "seed-0" / "02_stop.failed.ipynb"
    assert "reached" in failed.read_text() and not failed.with_name("02_stop.ipynb").exists()


def test_two_runs_at_once_run_the_notebook_once(world):
    command = [sys.executable, "-m", "bvlib.cli", "run", "00", "--profile", "tiny"]
    pair = [
        subprocess.Popen(command, cwd=world, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=120)[0] for process in pair)
    assert [process.returncode for process in pair] == [0, 0]
    assert count(world) == ["00_start"] and sum("1 run, 0 up to date" in text for text in said) == 1


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no sessions that share")
def test_a_kernel_is_as_nice_as_its_run(world):
    source = "Path('nice').write_text(Path('/proc/self/autogroup').read_text())\n"
    write_notebook(world / "notebooks" / "02_nice.ipynb", WORK, source, END)
    command = ["nice", "-n", "7", sys.executable, "-m", "bvlib.cli", "run", "02"]
    subprocess.run([*command, "--profile", "tiny"], cwd=world, check=True, capture_output=True)
    assert (world / "nice").read_text().split()[-2:] == ["nice", "7"]


@pytest.mark.parametrize("given", [None, "glibc.malloc.arena_max=2"])
def test_a_kernel_has_large_pages_unless_the_user_tunes_the_c_library(world, monkeypatch, given):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    source = "import os\nPath('tuned').write_text(os.environ['GLIBC_TUNABLES'])\n"
    write_notebook(world / "notebooks" / "02_tuned.ipynb", WORK, source, END)
    command = [sys.executable, "-m", "bvlib.cli", "run", "02", "--profile", "tiny"]
    subprocess.run(command, cwd=world, check=True, capture_output=True)
    assert (world / "tuned").read_text() == (given or "glibc.malloc.hugetlb=1")


@pytest.mark.parametrize("sign, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_leaves_no_kernel_and_goes_on(world, sign, code):
    write_notebook(
        world / "notebooks" / "02_long.ipynb",
        WORK,
        "import os, time\nif not Path('fast').exists():\n"
        "    Path('pid').write_text(str(os.getpid()))\n"
        "    time.sleep(300)\n",
        END,
    )
    command = [sys.executable, "-m", "bvlib.cli", "run", "02", "--profile", "tiny"]
    # a shell's background job ignores Ctrl-C and hands that on to its children: the run must get it
    # all the same
    process = subprocess.Popen(
        command,
        cwd=world,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: (world / "pid").exists() and (world / "pid").read_text(), process)
    process.send_signal(sign)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code and "Traceback" not in said
    assert sign == signal.SIGKILL or said.startswith("bv: stopped; what was computed is kept")
    kernel = int((world / "pid").read_text())
    wait_for(lambda: not alive(kernel))
    (world / "fast").touch()
    [artefact] = (world / "store" / "json").glob("02_long-*.value.json")
    before = artefact.stat().st_mtime_ns
    assert run_notebooks(["02"], "tiny")[0].reason
    assert artefact.stat().st_mtime_ns == before


def test_a_long_notebook_runs_by_name_only(world):
    make_long(world / "notebooks" / "01_next.ipynb")
    assert [record.name for record in run_notebooks(None, "tiny")] == ["00_start"]
    assert [record.name for record in run_notebooks(["01"], "tiny")] == ["01_next"]
    assert "(long: runs by name only)" in bv("list").stdout


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

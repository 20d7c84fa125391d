"""Work with notebooks in a real JupyterLab: python book/drive_lab.py [SCREENSHOTS]

Copies the notebooks to a temporary folder, starts `jupyter lab` there and opens notebooks 01 and 10
of the profile `smoke` in a headless Chromium. It runs all their cells by the menu, then moves a
slider of notebook 10 by the arrow keys. Fails on a cell with an error or not run, a figure that is
not shown, numbers that do not follow the slider, or an error in the console. Needs what browse.py
needs, and takes one to three minutes.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from browse import chromium
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
DRIVEN = ("01_badmerging", "10_interactive")
SIZE = (1280, 1000)
MINUTES = 10  # for the cells of one notebook
CELLS = """
const panel = window.jupyterapp.shell.currentWidget;
if (!panel?.context?.isReady || !panel.sessionContext?.isReady) return null;
const cells = [...panel.context.model.cells].map((cell, place) => ({place, ...cell.toJSON()}));
const kernel = panel.sessionContext.session?.kernel;
return {path: panel.context.path, kernel: kernel?.status, cells};
"""
SCROLL = """
const done = arguments[1], {content} = window.jupyterapp.shell.currentWidget;
content.scrollToItem(arguments[0], 'start').then(() => done(true), error => done(String(error)));
"""
PICTURES = """
const {content} = window.jupyterapp.shell.currentWidget;
return [...content.widgets[arguments[0]].node.querySelectorAll('.jp-OutputArea-output img')]
    .map(i => i.naturalWidth && i.clientWidth);
"""


@contextmanager
def jupyter_lab(folder: Path):
    """The address of a JupyterLab on copies of the notebooks below ``folder``, where all that it
    and its kernels write lies as well."""
    shown = folder / "notebooks"
    shown.mkdir()
    for name in DRIVEN:
        text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
        changed = text.replace(r"profile: str = \"mini\"", r"profile: str = \"smoke\"")
        assert changed != text, f"{name} does not say which profile it runs"
        (shown / f"{name}.ipynb").write_text(changed, encoding="utf-8")
    config = folder / "config" / "labconfig" / "page_config.json"
    config.parent.mkdir(parents=True)
    news = "@jupyterlab/apputils-extension:announcements"  # would ask the network
    config.write_text(json.dumps({"disabledExtensions": {news: True}}), encoding="utf-8")
    ours = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data"}
    ours |= {"JUPYTER_RUNTIME_DIR": "runtime", "BVLIB_RUNS": "runs", "BVLIB_STORE": "store"}
    ours |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(folder / below) for name, below in ours.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", str(shown), "--no-browser", f"--port={port}"]
    command += ["--ip=127.0.0.1", "--allow-root", "--IdentityProvider.token="]
    command += ["--expose-app-in-browser", "--ServerApp.port_retries=0"]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: server.poll() is None and answers(f"{address}/api"), 60)
        yield address
    except BaseException:
        print((folder / "server.log").read_text()[-3000:])
        raise
    finally:
        server.terminate()  # its kernels end with it
        server.wait(30)


def answers(address: str) -> bool:
    """Whether a server is there."""
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


def wait_for(what, seconds: float):
    """The first true thing that ``what()`` gives, asked twice a second."""
    for _ in range(int(2 * seconds)):
        if found := what():
            return found
        time.sleep(0.5)
    raise TimeoutError(f"nothing after {seconds} s")


def click(browser, where: str, words: str) -> None:
    """Click the entry of a menu that says ``words``."""
    path = f"//*[contains(@class, '{where}') and normalize-space(.) = '{words}']"
    wait_for(lambda: browser.find_elements(By.XPATH, path), 20)[0].click()


def run_all(browser, address: str, name: str) -> list[dict]:
    """Open a notebook and run all its cells by the menu; the cells once the kernel rests."""
    browser.get(f"{address}/lab/tree/{name}.ipynb?reset")

    def state() -> dict:
        ready = browser.execute_script("return Boolean(window.jupyterapp?.shell)")
        found = ready and browser.execute_script(CELLS)
        return found if found and found["path"] == f"{name}.ipynb" else {}

    wait_for(lambda: state().get("kernel") == "idle", 90)
    click(browser, "lm-MenuBar-itemLabel", "Run")
    click(browser, "lm-Menu-itemLabel", "Run All Cells")

    def done() -> list[dict]:
        now = state()
        code = [cell for cell in now["cells"] if cell["cell_type"] == "code"]
        failed = any(output["output_type"] == "error" for c in code for output in c["outputs"])
        all_ran = failed or all(cell["execution_count"] for cell in code)
        return now["cells"] if all_ran and now["kernel"] == "idle" else []

    return wait_for(done, 60 * MINUTES)


def faults(browser, cells: list[dict], shoot) -> list[str]:
    """What is wrong with the cells of the notebook that is open; each figure is scrolled to."""
    found, figures = [], 0
    for cell in (each for each in cells if each["cell_type"] == "code"):
        kinds = [set(output.get("data", ())) for output in cell["outputs"]]
        errors = [each for each in cell["outputs"] if each["output_type"] == "error"]
        found += [f"cell {cell['place']}: {each['ename']}: {each['evalue']}" for each in errors]
        if not cell["execution_count"]:
            found.append(f"cell {cell['place']} was not run")
        if "lab.figure(" in "".join(cell["source"]) and not any("image/png" in k for k in kinds):
            found.append(f"cell {cell['place']} made no figure")
        if any("image/png" in kind for kind in kinds):
            figures += 1
            browser.execute_async_script(SCROLL, cell["place"])
            time.sleep(1)
            widths = browser.execute_script(PICTURES, cell["place"])
            if not widths or not all(widths):
                found.append(f"cell {cell['place']}: a figure is not shown")
            shoot(f"cell-{cell['place']}")
    return found + ["no figures"] * (not figures)


def slider(browser, cells: list[dict], shoot) -> list[str]:
    """Whether picture and numbers follow the first slider, which the keyboard takes from λ_BV = 1
    to 0: there the attacked merge is the clean one."""
    [place] = [c["place"] for c in cells if "live = Panel(" in "".join(c["source"])]
    browser.execute_async_script(SCROLL, place)

    def texts(where: str) -> list[str]:
        return [each.text for each in browser.find_elements(By.CSS_SELECTOR, where)]

    def shown() -> tuple:
        picture = browser.find_element(By.CSS_SELECTOR, "img.widget-image").get_attribute("src")
        return (
            texts(".widget-readout")[0],
            re.findall(r"([\d.]+) %", " ".join(texts(".widget-label"))),
            picture,
        )

    wait_for(lambda: texts(".widget-readout"), 30)
    before = shown()
    shoot("slider-before")
    handle = browser.find_element(By.CSS_SELECTOR, ".noUi-handle")
    handle.click()
    handle.send_keys(*[Keys.ARROW_LEFT] * 20)
    with suppress(TimeoutError):
        wait_for(lambda: shown()[0] == "0.00" and shown()[1][1] == shown()[1][2], 60)
    after = shown()
    shoot("slider-after")
    print("λ_BV; accuracy, ASR, ASR without BV (%):", *before[:2], "->", *after[:2])
    if after[0] != "0.00":
        return [f"the slider went from {before[0]} to {after[0]}, not to 0.00"]
    found = [] if after[1][1] == after[1][2] else ["without the BV the ASR is not that without it"]
    return found + ["the picture did not change"] * (before[2] == after[2])


def main(shots: Path | None) -> int:
    """The number of faults, which are printed."""
    found = []
    with tempfile.TemporaryDirectory() as folder, jupyter_lab(Path(folder)) as address:
        browser = chromium()
        browser.set_window_size(*SIZE)
        try:
            for name in DRIVEN:

                def shoot(what: str, name=name) -> None:
                    if shots:
                        shots.mkdir(parents=True, exist_ok=True)
                        browser.save_screenshot(str(shots / f"lab-{name[:2]}-{what}.png"))

                began = time.monotonic()
                cells = run_all(browser, address, name)
                print(f"{name}: {time.monotonic() - began:.0f} s")
                mine = faults(browser, cells, shoot)
                if name == "10_interactive" and not mine:
                    mine += slider(browser, cells, shoot)
                log = browser.get_log("browser")
                mine += [each["message"] for each in log if each["level"] == "SEVERE"]
                found += [f"{name}: {each}" for each in mine]
        finally:
            browser.quit()
    print("\n".join(found) or f"{' and '.join(DRIVEN)} in JupyterLab: no fault")
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))

"""Open the built book in a real browser: python book/browse.py FOLDER [SCREENSHOTS]

Serves the folder on this machine and opens pages in a headless Chromium, at the width of a desk and
of a phone, light and dark. Fails on an error in the console, a picture that does not load, a page
wider than the screen, a formula that is not drawn, or a search that does not find "BadNets". Needs
`chromium` and `chromedriver` (Debian: chromium, chromium-driver), and the extra `browser`.
"""

import functools
import shutil
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By

PAGES = ("index", "results/toy-world", "claims", "notebooks/01_badmerging", "methods", "glossary")
SIZES = {"desk": (1280, 1000), "phone": (390, 840)}
BROKEN = "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
WIDER = "return document.documentElement.scrollWidth - window.innerWidth"
FORMULAS = "return [...document.querySelectorAll('math')].filter(m => !m.clientHeight).length"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


def chromium():
    """A headless Chromium that keeps what its console says."""
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.ChromeService(shutil.which("chromedriver"))  # else it asks the network
    return webdriver.Chrome(options, driver)


def faults(browser, address: str, page: str, size: str) -> list[str]:
    """What is wrong with one page at one size."""
    browser.set_window_size(*SIZES[size])
    browser.get(f"{address}/{page}.html")
    time.sleep(0.5)
    found = [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    found += [f"picture does not load: {source}" for source in browser.execute_script(BROKEN)]
    if (over := browser.execute_script(WIDER)) > 1:
        found.append(f"{over} px wider than the screen")
    if hidden := browser.execute_script(FORMULAS):
        found.append(f"{hidden} formulas are not drawn")
    return [f"{page} ({size}): {each}" for each in found]


def search(browser, address: str, word: str) -> list[str]:
    """Whether the search finds a word."""
    browser.get(f"{address}/search.html?q={word}")
    for _ in range(20):
        if browser.find_elements(By.CSS_SELECTOR, "ul.search li"):
            return []
        time.sleep(0.5)
    return [f"the search does not find {word}"]


def main(folder: Path, shots: Path | None) -> int:
    """The number of faults, which are printed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    browser, found = chromium(), []
    try:
        for page in PAGES:
            for size in SIZES:
                found += faults(browser, address, page, size)
                if shots:
                    shots.mkdir(parents=True, exist_ok=True)
                    browser.save_screenshot(str(shots / f"{page.replace('/', '-')}-{size}.png"))
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        )
        found += faults(browser, address, "notebooks/01_badmerging", "desk")
        if shots:
            browser.save_screenshot(str(shots / "dark.png"))
        found += search(browser, address, "BadNets")
    finally:
        browser.quit()
        server.shutdown()
    print("\n".join(found) or f"{len(PAGES)} pages, {len(SIZES)} sizes, dark, search: no fault")
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)))

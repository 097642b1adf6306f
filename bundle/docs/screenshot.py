"""Take the pictures of TensorBoard and of the report that the README shows.

pip install selenium  # and Chromium with its driver, such as Debian's chromium and chromium-driver
python bundle/docs/screenshot.py runs/phantom bundle/docs/tensorboard.png
python bundle/docs/screenshot.py runs/phantom images.png --page images
python bundle/docs/screenshot.py runs/pictures/evaluation bundle/docs/report.png --page report --height 1500
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

PORT = 6123
REPORT = "report"
PAGES = ("custom_scalars", "timeseries", "scalars", "images", "pr_curves", "text", "hparams")
# TensorBoard's older pages are made of web components, which XPath does not see into.
CLICK = """
const [name, text] = arguments;
function click(root) {
    for (const element of root.querySelectorAll("*")) {
        if (element.matches(name) && element.textContent.includes(text)) element.click();
        if (element.shadowRoot) click(element.shadowRoot);
    }
}
click(document);
"""
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main() -> None:
    """Start TensorBoard on a run, wait until it shows data, and save what the browser shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--page", choices=(*PAGES, REPORT), default=PAGES[0], help="page of TensorBoard, or report")
    parser.add_argument("--height", type=int, default=1000, help="of the window, in pixels")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--driver", default="/usr/bin/chromedriver")
    parser.add_argument("--seconds", type=float, default=15, help="how long the page may take to draw")
    args = parser.parse_args()

    if args.page == REPORT:
        with browser(args) as window:
            window.get((args.logdir / "report.html").resolve().as_uri())
            time.sleep(2)
            gallery = window.find_element(By.ID, "gallery")
            window.execute_script("arguments[0].scrollIntoView()", gallery)
            time.sleep(3)
            window.save_screenshot(str(args.picture))
        return
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(args.logdir), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://localhost:{PORT}/data/environment")
            with browser(args) as window:
                window.get(f"http://localhost:{PORT}/#{args.page}&_smoothingWeight=0")
                time.sleep(args.seconds)
                show_whole_curves(window)
                window.save_screenshot(str(args.picture))
        finally:
            server.terminate()


@contextmanager
def browser(args: argparse.Namespace) -> Iterator[webdriver.Chrome]:
    """Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = args.chromium
    for option in OPTIONS:
        options.add_argument(option)
    options.add_argument(f"--window-size=1700,{args.height}")
    window = webdriver.Chrome(options=options, service=Service(args.driver))
    try:
        yield window
    finally:
        window.quit()


def show_whole_curves(window: webdriver.Chrome) -> None:
    """Untick what cuts short curves, and close the panel that takes their room, where the page has them."""
    window.execute_script(CLICK, "paper-checkbox", "Ignore outliers")
    for control in ("//mat-checkbox[contains(., 'Ignore outliers')]//input", "//button[contains(., 'Settings')]"):
        for found in window.find_elements(By.XPATH, control)[:1]:
            found.click()
    time.sleep(2)


def wait_for(address: str, seconds: float = 60) -> None:
    """Wait until a server answers.

    Raises:
        TimeoutError: when it does not in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"{address} did not answer within {seconds} s.")


if __name__ == "__main__":
    main()

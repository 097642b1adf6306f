"""Take the picture of TensorBoard that the README shows.

pip install selenium  # and Chromium with its driver, such as Debian's chromium and chromium-driver
python bundle/docs/screenshot.py runs/phantom bundle/docs/tensorboard.png
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

PORT = 6123
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1700,1700",
)


def main() -> None:
    """Start TensorBoard on a run, wait until it shows data, and save what the browser shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--driver", default="/usr/bin/chromedriver")
    parser.add_argument("--seconds", type=float, default=15, help="how long the page may take to draw")
    args = parser.parse_args()

    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(args.logdir), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://localhost:{PORT}/data/environment")
            options = webdriver.ChromeOptions()
            options.binary_location = args.chromium
            for option in OPTIONS:
                options.add_argument(option)
            browser = webdriver.Chrome(options=options, service=Service(args.driver))
            try:
                browser.get(f"http://localhost:{PORT}/#timeseries")
                time.sleep(args.seconds)
                # Short curves are cut where outliers are ignored; the panel of settings takes room they need.
                for control in (
                    "//mat-checkbox[contains(., 'Ignore outliers')]//input",
                    "//button[contains(., 'Settings')]",
                ):
                    browser.find_element(By.XPATH, control).click()
                time.sleep(2)
                browser.save_screenshot(str(args.picture))
            finally:
                browser.quit()
        finally:
            server.terminate()


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

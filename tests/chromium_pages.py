"""Pages opened from a file in Chromium with the network off, and the slice viewers on them."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = Path(
    os.environ.get("MRI_SEG_AXE", Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js")
).resolve()
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
)


@contextmanager
def started() -> Iterator[Any]:
    """Chromium, which logs its console and its requests."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@contextmanager
def opened(chromium: Any, file: Path) -> Iterator[Any]:
    """A page, freshly opened; ends with a look at the console and at what was requested."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    conditions = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    chromium.execute_cdp_cmd("Network.enable", {})
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
    show(chromium)
    chromium.get(file.as_uri())
    yield chromium
    assert [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert [url for url in requests(chromium) if not url.startswith(("file:", "data:", "blob:"))] == []


def show(driver: Any, *, width: int = 1280, dark: bool = False, media: str = "") -> None:
    """Set the width of the window and what the page may know of its reader's wishes."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})


def requests(driver: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def wait(driver: Any, condition: Callable[[], Any]) -> Any:
    return WebDriverWait(driver, 20, poll_frequency=0.05).until(lambda _: condition())


class Shown:
    """A viewer on the page."""

    def __init__(self, page: Any, case: str, slices: int = 6) -> None:
        self.page, self.slices = page, slices
        self.element: WebElement = page.find_element(By.CSS_SELECTOR, f".viewer[data-case='{case}']")
        page.execute_script("arguments[0].scrollIntoView()", self.element)
        wait(page, lambda: self.element.get_attribute("data-painted"))
        self.canvas: WebElement = self.find("canvas")

    def find(self, selector: str) -> WebElement:
        return self.element.find_element(By.CSS_SELECTOR, selector)

    def slice(self) -> int:
        return int(self.element.get_attribute("data-painted"))

    def reaches(self, number: int) -> None:
        wait(self.page, lambda: self.slice() == number)
        assert self.find(".status").text.startswith(f"Slice {number} of {self.slices}: ")
        assert self.canvas.get_attribute("aria-valuenow") == str(number)

    def pixels(self) -> np.ndarray:
        """What the canvas shows ``(h, w, 3)``, at native resolution."""
        uri = self.page.execute_script("return arguments[0].toDataURL()", self.canvas)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))

    def press(self, layer: str) -> np.ndarray:
        """Press a layer's button; returns what is shown then."""
        before, button = self.pixels(), self.find(f"[data-layer={layer}]")
        pressed = button.get_attribute("aria-pressed") == "true"
        button.click()
        assert button.get_attribute("aria-pressed") == str(not pressed).lower()
        wait(self.page, lambda: (self.pixels() != before).any())
        return self.pixels()

    def has_focus(self) -> bool:
        return self.page.execute_script("return arguments[0].contains(document.activeElement)", self.element)


def count_of(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((pixels == color).all(axis=-1).sum())


def serious_violations(page: Any) -> list[tuple[str, Any, str]]:
    """What axe-core finds on a page that is serious or worse."""
    page.execute_script(AXE.read_text(encoding="utf-8"))
    page.set_script_timeout(60)
    found = page.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations), e => done(String(e)))"
    )
    return [
        (rule["id"], node["target"], node["failureSummary"])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def brightness(page: Any) -> list[float]:
    """Mean color of a page's ground and of its text, from 0 to 255."""
    style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    colors = [c.partition("(")[2].strip(")").split(",")[:3] for c in page.execute_script(style)]
    return [float(np.mean([float(v) for v in color])) for color in colors]


needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)",
)
needs_axe = pytest.mark.skipif(
    not AXE.is_file(), reason="needs axe-core: npm install axe-core, or its file in MRI_SEG_AXE"
)

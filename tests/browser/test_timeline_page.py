"""The page of a patient over time in a real browser, opened from a file with the network off."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium_pages import needs_axe, needs_chromium, opened, serious_violations, show, wait
from heads_over_time import head_scan
from selenium.webdriver import ActionChains, Keys

from mri_seg.follow_up.engine import make_timeline
from mri_seg.follow_up.timeline import Scan
from mri_seg.follow_up.timeline_page import timeline_page

pytestmark = [pytest.mark.browser, needs_chromium]


TWO = [((20, 10, 5), 15.0), ((-30, 0, 5), 10.0)]


def three_scans() -> list[Scan]:
    return [
        head_scan("a<b", day="2020-01-01"),
        head_scan("later", TWO, day="2021-06-01"),
        head_scan("last", TWO, day="2022-01-01", event="surgery"),
    ]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "P1_timeline.html"
    file.write_text(timeline_page(make_timeline("P1", three_scans())), encoding="utf-8")
    return file


@pytest.fixture
def page(chromium: Any, page_file: Path) -> Iterator[Any]:
    with opened(chromium, page_file) as shown:
        shown.execute_script("document.querySelector('.scans').scrollIntoView()")
        wait(shown, lambda: len(painted(shown)) == 3)
        yield shown


def painted(page: Any) -> list[str]:
    return [
        viewer.get_attribute("data-painted") for viewer in page.find_elements("css selector", ".viewer[data-painted]")
    ]


def test_all_scans_follow_the_one_that_is_moved(page: Any) -> None:
    before = int(painted(page)[0])
    assert painted(page) == [str(before)] * 3
    page.execute_script("document.querySelectorAll('.viewer canvas')[1].focus()")
    ActionChains(page).send_keys(Keys.ARROW_UP, Keys.ARROW_UP).perform()
    wait(page, lambda: painted(page) == [str(before + 2)] * 3)


def test_page_says_what_it_was_tried_on(page: Any) -> None:
    text = page.find_element("css selector", "main").text
    assert "No pairs of real scans" in text
    assert "Research software" in page.find_element("css selector", "footer").text
    assert "a<b" in text


@pytest.mark.parametrize("later", [0, 3, 5, 9])
def test_page_prints_on_one_sheet(chromium: Any, tmp_path: Path, later: int) -> None:
    scans = [*three_scans(), *(head_scan(f"scan{n}", TWO, day=f"{2023 + n}-01-01") for n in range(later))]
    (tmp_path / "page.html").write_text(timeline_page(make_timeline("P1", scans)), encoding="utf-8")
    a4 = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
    with opened(chromium, tmp_path / "page.html") as page:
        pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", a4)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_slope_is_written_below_the_curve(page: Any) -> None:
    captions = [caption.text for caption in page.find_elements("css selector", "figcaption")]
    assert "the fitted line" not in captions[0]  # one scan alone since the surgery
    titles = [title.text for title in page.find_elements("css selector", ".scans h3")]
    assert titles == ["2020-01-01 baseline", "2021-06-01", "2022-01-01, after: surgery baseline"]


@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_no_wider_than_the_window(page: Any, width: int) -> None:
    show(page, width=width)
    wait(page, lambda: page.execute_script("return document.documentElement.scrollWidth <= innerWidth"))
    assert page.execute_script("return innerWidth") <= width


@needs_axe
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(page: Any, dark: bool) -> None:
    show(page, dark=dark)
    assert serious_violations(page) == []

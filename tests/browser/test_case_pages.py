"""The page of a case and the page of all cases in a real browser, opened from files with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium_pages import (
    Shown,
    brightness,
    count_of,
    needs_axe,
    needs_chromium,
    opened,
    serious_violations,
    show,
    wait,
)
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from mri_seg.measurements.lesions import measure
from mri_seg.utils.colors import PREDICTION
from mri_seg.visualize.case_page import case_page
from mri_seg.visualize.index_page import write_index
from mri_seg.visualize.overlays import contours

pytestmark = [pytest.mark.browser, needs_chromium]

AXIAL = np.array([[0, -1.0, 0, 90], [-2.0, 0, 0, 80], [0, 0, 5.0, -40], [0, 0, 0, 1]])
"""Rows 2 mm apart, columns 1 mm."""

FLAG = {"name": "timing_not_flair", "message": "By its timing this is not FLAIR."}


def lesion() -> np.ndarray:
    """A tumour in slices 2 to 5 of 6, largest in slice 4, and a small one in slice 6."""
    mask = np.zeros((60, 50, 6), dtype=np.uint8)
    mask[20:30, 14:24, 1:5] = 1
    mask[18:32, 14:26, 3] = 1
    mask[40:43, 30:33, 5] = 1
    return mask


def page_of(name: str) -> str:
    rows, columns = np.mgrid[:60, :50] - np.array([30, 25])[:, None, None]
    head = ((rows / 27) ** 2 + (columns / 22) ** 2 < 1)[..., None]
    image = head * np.random.default_rng(0).normal(100, 4, (60, 50, 6)) + 60 * lesion()
    probability = lesion() * 0.9
    measured = measure(lesion(), AXIAL, case=name, probability=probability)
    return case_page({**measured, "flags": [FLAG]}, image, lesion(), probability, pixel_height=2.0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    rows, measured = {}, {}
    for name, volume in (("case 2", "3.5"), ("case 10", "12.25"), ("case #1", "100.5")):
        (folder / name).mkdir()
        (folder / name / f"{name}.html").write_text(page_of(name), encoding="utf-8")
        rows[name] = {"case": name, "status": "done", "volume_ml": volume, "lesion_count": "2"}
        measured[name] = {"longest_diameter_mm": "28.0"}
    rows["case 2"] |= {"flags": FLAG["name"], "warnings": FLAG["message"]}
    rows["study"] = {"case": "study", "status": "failed", "error": "/data/study: has no FLAIR series."}
    write_index(folder, rows, measured)
    return folder


@pytest.fixture
def page(chromium: Any, cases: Path) -> Iterator[Any]:
    with opened(chromium, cases / "case 2" / "case 2.html") as page:
        yield page


@pytest.fixture
def viewer(page: Any) -> Shown:
    return Shown(page, "case 2")


@pytest.fixture
def index(chromium: Any, cases: Path) -> Iterator[Any]:
    with opened(chromium, cases / "index.html") as page:
        yield page


def lines(viewer: Shown) -> list[WebElement]:
    return viewer.element.find_elements(By.CSS_SELECTOR, ".frame line.line")


class TestViewer:
    def test_viewer_opens_at_the_largest_area_and_keys_step(self, viewer: Shown) -> None:
        viewer.reaches(4)
        viewer.canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
        viewer.reaches(2)
        viewer.canvas.send_keys(Keys.END)
        viewer.reaches(6)

    def test_outline_is_that_of_the_mask_and_its_button_takes_it_away(self, viewer: Shown) -> None:
        assert count_of(viewer.pixels(), PREDICTION) == contours(lesion()[..., 3]).sum()
        assert count_of(viewer.press("prediction"), PREDICTION) == 0

    def test_probability_covers_the_tumour_alone(self, viewer: Shown) -> None:
        viewer.press("prediction")
        before = viewer.pixels()
        changed = (viewer.press("probability") != before).any(axis=-1)
        assert changed.sum() == lesion()[..., 3].sum()

    def test_layers_that_the_page_has_not_have_no_button(self, viewer: Shown) -> None:
        shown = [b.text for b in viewer.element.find_elements(By.CSS_SELECTOR, "[data-layer]") if b.is_displayed()]
        assert shown == ["Prediction", "Probability", "Diameters"]
        assert not viewer.find("[data-action=save]").is_displayed()

    def test_diameters_are_lines_over_the_tumour_of_their_slice(self, page: Any, viewer: Shown) -> None:
        assert len(lines(viewer)) == 2
        canvas = viewer.canvas.rect
        box = "const r = arguments[0].getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]"
        outline = np.argwhere((viewer.pixels() == PREDICTION).all(axis=-1))
        scale = np.array([canvas["height"], canvas["width"]]) / viewer.pixels().shape[:2]
        top, left = outline.min(axis=0) * scale + (canvas["y"], canvas["x"])
        bottom, right = (outline.max(axis=0) + 1) * scale + (canvas["y"], canvas["x"])
        scrolled = page.execute_script("return scrollY")
        found = np.array([page.execute_script(box, line) for line in lines(viewer)])
        found[:, 1::2] += scrolled
        np.testing.assert_allclose([found[:, 0].min(), found[:, 2].max()], [left, right], atol=6)
        np.testing.assert_allclose([found[:, 1].min(), found[:, 3].max()], [top, bottom], atol=6)
        viewer.find("[data-layer=diameters]").click()
        wait(page, lambda: not lines(viewer))
        viewer.find("[data-layer=diameters]").click()
        viewer.canvas.send_keys(Keys.ARROW_DOWN)
        viewer.reaches(3)
        assert lines(viewer) == []

    def test_pixels_are_drawn_at_their_height(self, viewer: Shown) -> None:
        height, width = viewer.pixels().shape[:2]
        size = viewer.canvas.size
        assert size["height"] / size["width"] == pytest.approx(2 * height / width, rel=0.02)

    def test_a_lesion_of_the_table_opens_the_slice_where_it_was_measured(self, page: Any, viewer: Shown) -> None:
        page.find_elements(By.CSS_SELECTOR, "table a[data-slice]")[1].click()
        viewer.reaches(6)
        wait(page, viewer.has_focus)

    def test_dragging_changes_window_and_level(self, page: Any, viewer: Shown) -> None:
        before = viewer.pixels()
        ActionChains(page).click_and_hold(viewer.canvas).move_by_offset(60, 30).release().perform()
        wait(page, lambda: (viewer.pixels() != before).any())
        viewer.reaches(4)

    def test_swiping_sideways_steps_through_slices(self, page: Any, viewer: Shown) -> None:
        show(page, width=390)
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", viewer.canvas)
        before = viewer.find("[data-window=window]").get_attribute("value")
        box = page.execute_script(
            "const r = arguments[0].getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]",
            viewer.canvas,
        )
        for kind, moved in (("touchStart", 0), ("touchMove", -15), ("touchMove", -30), ("touchEnd", None)):
            points = [] if moved is None else [{"x": box[0] + moved, "y": box[1]}]
            page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        wait(page, lambda: viewer.slice() < 4)
        assert viewer.find("[data-window=window]").get_attribute("value") == before


class TestIndex:
    def names(self, index: Any, place: int = 1) -> list[str]:
        rows = index.find_elements(By.CSS_SELECTOR, "#cases tbody tr")
        return [row.find_elements(By.XPATH, "./*")[place].text for row in rows if row.is_displayed()]

    def header(self, index: Any, words: str) -> WebElement:
        return next(h for h in index.find_elements(By.CSS_SELECTOR, "#cases thead th") if h.text.startswith(words))

    def test_headers_sort_by_keyboard_and_say_so(self, index: Any) -> None:
        header = self.header(index, "volume")
        header.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert header.get_attribute("aria-sort") == "descending"
        assert self.names(index) == ["case #1", "case 10", "case 2", "study"]
        header.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
        assert header.get_attribute("aria-sort") == "ascending"
        assert self.names(index) == ["case 2", "case 10", "case #1", "study"]  # without a volume: last
        name = self.header(index, "case")
        name.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert header.get_attribute("aria-sort") is None
        assert self.names(index) == ["case #1", "case 2", "case 10", "study"]

    def test_failed_cases_and_flags_come_first_when_sorted_by_what_to_check(self, index: Any) -> None:
        self.header(index, "please check").find_element(By.TAG_NAME, "button").click()
        assert self.names(index)[:2] == ["study", "case 2"]

    def test_search_hides_the_other_cases_and_counts(self, index: Any) -> None:
        index.find_element(By.ID, "search").send_keys("flair done")
        wait(index, lambda: self.names(index) == ["case 2"])
        assert index.find_element(By.ID, "found").text == "1 of 4 cases"
        index.find_element(By.ID, "search").send_keys(Keys.CONTROL, "a")
        index.find_element(By.ID, "search").send_keys(Keys.DELETE)
        wait(index, lambda: len(self.names(index)) == 4)

    def test_a_case_leads_to_its_page(self, index: Any) -> None:
        index.find_element(By.LINK_TEXT, "case #1").click()
        wait(index, lambda: index.title == "case #1")
        Shown(index, "case #1").reaches(4)

    def test_every_case_with_a_page_has_a_picture(self, index: Any) -> None:
        pictures = index.find_elements(By.CSS_SELECTOR, "#cases img")
        assert len(pictures) == 3
        for picture in pictures:
            wait(index, lambda picture=picture: picture.get_property("naturalWidth") > 30)


class TestReaders:
    @pytest.mark.parametrize("name", ["index.html", "case 2/case 2.html"])
    @pytest.mark.parametrize("width", [320, 390])
    def test_narrow_windows_do_not_scroll_sideways(self, chromium: Any, cases: Path, name: str, width: int) -> None:
        with opened(chromium, cases / name) as page:
            show(page, width=width)
            assert page.execute_script("return document.documentElement.scrollWidth") <= width

    @pytest.mark.parametrize("name", ["index.html", "case 2/case 2.html"])
    def test_pages_are_dark_and_light(self, chromium: Any, cases: Path, name: str) -> None:
        with opened(chromium, cases / name) as page:
            ground, text = brightness(page)
            assert ground > 200 > text
            show(page, dark=True)
            ground, text = brightness(page)
            assert ground < 60 < 200 < text

    @needs_axe
    @pytest.mark.parametrize("name", ["index.html", "case 2/case 2.html"])
    @pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)])
    def test_pages_have_no_serious_accessibility_violation(
        self, chromium: Any, cases: Path, name: str, dark: bool, width: int
    ) -> None:
        with opened(chromium, cases / name) as page:
            show(page, dark=dark, width=width)
            for details in page.find_elements(By.TAG_NAME, "details"):
                page.execute_script("arguments[0].open = true", details)
            assert serious_violations(page) == []

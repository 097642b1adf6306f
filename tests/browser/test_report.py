"""The report in a real browser, opened from a file with the network off."""

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
from evaluated import make_cases, write_evaluation
from PIL import Image
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from mri_seg.report import write_report
from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.visualize.overlays import contours, gray_levels, head_box

PARTLY_FALSE = make_cases()[2]  # the patient of the gallery whose separate false lesion is in slice 6

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    return write_report(write_evaluation(folder / "this"), other=write_evaluation(folder / "other", threshold=0.4))


@pytest.fixture
def page(chromium: Any, report: Path) -> Iterator[Any]:
    with opened(chromium, report) as page:
        yield page


class TestStepping:
    def test_viewer_opens_at_the_largest_false_lesion(self, page: Any) -> None:
        Shown(page, PARTLY_FALSE.case).reaches(6)

    @pytest.mark.parametrize(
        ("keys", "number"),
        [
            ([Keys.ARROW_DOWN], 5),
            ([Keys.ARROW_LEFT, Keys.ARROW_LEFT], 4),
            ([Keys.HOME], 1),
            ([Keys.HOME, Keys.ARROW_UP, Keys.ARROW_RIGHT], 3),
            ([Keys.PAGE_DOWN], 1),
            ([Keys.HOME, Keys.END], 6),
            ([Keys.ARROW_UP], 6),
        ],
    )
    def test_keys_step_through_slices(self, page: Any, keys: list[str], number: int) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        viewer.canvas.send_keys(*keys)
        viewer.reaches(number)

    def test_slider_steps_through_slices(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        viewer.find("input[type=range]").send_keys(Keys.ARROW_LEFT)
        viewer.reaches(5)

    def test_wheel_turns_slices_of_the_viewer_with_the_focus(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        viewer.canvas.click()
        place = page.execute_script("return scrollY")
        ActionChains(page).scroll_from_origin(ScrollOrigin.from_element(viewer.canvas), 0, 120).perform()
        viewer.reaches(5)
        assert page.execute_script("return scrollY") == place

    def test_wheel_scrolls_the_page_otherwise(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        assert not viewer.has_focus()
        place = page.execute_script("return scrollY")
        ActionChains(page).scroll_from_origin(ScrollOrigin.from_element(viewer.canvas), 0, -120).perform()
        wait(page, lambda: page.execute_script("return scrollY") < place)
        viewer.reaches(6)

    def test_slices_of_the_viewer_differ(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        before = viewer.pixels()
        viewer.canvas.send_keys(Keys.ARROW_DOWN)
        viewer.reaches(5)
        assert (viewer.pixels() != before).any()


class TestLayers:
    @pytest.fixture
    def viewer(self, page: Any) -> Shown:
        viewer = Shown(page, PARTLY_FALSE.case)
        viewer.canvas.send_keys(Keys.HOME, Keys.ARROW_UP)
        viewer.reaches(2)
        return viewer

    def test_outlines_are_those_of_the_pictures(self, viewer: Shown) -> None:
        expected = {
            color: int(contours(mask[..., 1]).sum())
            for mask, color in ((PARTLY_FALSE.label, REFERENCE), (PARTLY_FALSE.pred, PREDICTION))
        }
        assert count_of(viewer.pixels(), PREDICTION) == expected[PREDICTION]
        assert count_of(viewer.press("prediction"), REFERENCE) == expected[REFERENCE]

    def test_viewer_without_outlines_shows_the_image_at_native_resolution(self, viewer: Shown) -> None:
        viewer.press("reference")
        shown = viewer.press("prediction")
        assert (np.ptp(shown, axis=-1) == 0).all()
        gray = gray_levels(PARTLY_FALSE.image)
        expected = gray[(*head_box(gray), 1)]
        assert shown.shape[:2] == expected.shape
        assert np.abs(shown[..., 0].astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("layer", ["reference", "prediction", "errors", "probability", "attention"])
    def test_a_button_pressed_twice_changes_nothing(self, viewer: Shown, layer: str) -> None:
        before = viewer.pixels()
        assert (viewer.press(layer) != before).any()
        assert (viewer.press(layer) == before).all()

    def test_only_one_layer_covers_the_image(self, viewer: Shown) -> None:
        viewer.press("errors")
        viewer.press("probability")
        assert viewer.find("[data-layer=errors]").get_attribute("aria-pressed") == "false"

    def test_attention_of_gates_differs(self, viewer: Shown) -> None:
        gates = viewer.find(".gate")
        assert not gates.is_displayed()
        viewer.press("attention")
        assert [option.text for option in gates.find_elements(By.TAG_NAME, "option")] == ["1", "2", "3", "4"]

    def test_viewer_has_no_attention_where_there_is_none(self, page: Any) -> None:
        name = make_cases()[1].case
        page.find_element(By.CSS_SELECTOR, f"details[data-case='{name}'] summary").click()
        assert not Shown(page, name).find("[data-layer=attention]").is_displayed()


class TestWindow:
    def test_dragging_changes_window_and_level(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        before = viewer.pixels()
        names = ("window", "level")
        values = [float(viewer.find(f"[data-window={name}]").get_attribute("value")) for name in names]
        ActionChains(page).click_and_hold(viewer.canvas).move_by_offset(60, 30).release().perform()
        wait(page, lambda: (viewer.pixels() != before).any())
        changed = [float(viewer.find(f"[data-window={name}]").get_attribute("value")) for name in names]
        assert all(new > old for new, old in zip(changed, values))
        viewer.find("[data-action=reset]").click()
        wait(page, lambda: (viewer.pixels() == before).all())

    def test_typing_changes_window_and_level(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        before = viewer.pixels()
        level = viewer.find("[data-window=level]")
        level.clear()
        level.send_keys("30", Keys.TAB)
        wait(page, lambda: viewer.pixels().mean() > before.mean())


class TestPanel:
    def test_panel_is_a_png_of_three_pictures(self, page: Any, tmp_path: Path) -> None:
        page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
        viewer = Shown(page, PARTLY_FALSE.case)
        viewer.canvas.send_keys(Keys.HOME, Keys.ARROW_UP)
        viewer.reaches(2)
        viewer.find("[data-action=save]").click()
        file = tmp_path / f"{PARTLY_FALSE.case}_slice_2.png"
        wait(page, file.is_file)
        panel = np.asarray(Image.open(file).convert("RGB"))
        height, width = viewer.pixels().shape[:2]
        assert panel.shape == (18 + height, 3 * width + 8, 3)
        mask = panel[18:, width + 4 : 2 * width + 4]
        assert count_of(mask, (255, 255, 255)) == PARTLY_FALSE.label[..., 1].sum()
        overlay = panel[18:, 2 * width + 8 :].astype(int)
        assert ((overlay[..., 0] - overlay[..., 2]) > 40).sum() == PARTLY_FALSE.pred[..., 1].sum()


class TestTables:
    def column(self, table: WebElement, place: int) -> list[str]:
        return [
            row.find_elements(By.XPATH, "./*")[place].text for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
        ]

    def test_a_header_sorts_and_says_so(self, page: Any) -> None:
        table = page.find_element(By.CSS_SELECTOR, "table[aria-labelledby=all-patients]")
        header = table.find_elements(By.CSS_SELECTOR, "thead th")[2]
        header.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        dice = [float(text) for text in self.column(table, 2)]
        assert header.get_attribute("aria-sort") == "descending"
        assert dice == sorted(dice, reverse=True)
        header.find_element(By.TAG_NAME, "button").click()
        assert header.get_attribute("aria-sort") == "ascending"
        assert [float(text) for text in self.column(table, 2)] == dice[::-1]

    def test_names_sort_as_text(self, page: Any) -> None:
        table = page.find_element(By.CSS_SELECTOR, "table[aria-labelledby=all-patients]")
        names = self.column(table, 0)
        for expected in (sorted(names), sorted(names, reverse=True)):
            table.find_element(By.CSS_SELECTOR, "thead button").click()
            assert self.column(table, 0) == expected

    def test_a_row_opens_its_viewer(self, page: Any) -> None:
        name = make_cases()[1].case
        page.find_element(By.CSS_SELECTOR, "table[aria-labelledby=all-patients]").find_element(
            By.LINK_TEXT, name
        ).click()
        viewer = Shown(page, name)
        assert viewer.canvas.is_displayed()
        wait(page, viewer.has_focus)

    def test_a_point_of_a_chart_opens_its_viewer(self, page: Any) -> None:
        name = make_cases()[1].case
        page.execute_script(
            "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', {bubbles: true}))",
            f".point[data-case='{name}'] *",
        )
        wait(page, Shown(page, name).has_focus)

    def test_a_lesion_opens_its_slice(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        viewer.canvas.send_keys(Keys.HOME)
        viewer.reaches(1)
        page.find_element(By.CSS_SELECTOR, "table[aria-labelledby=false-lesions] a").click()
        viewer.reaches(6)


class TestReaders:
    @pytest.mark.parametrize("width", [320, 390, 768])
    def test_narrow_windows_do_not_scroll_sideways(self, page: Any, width: int) -> None:
        show(page, width=width)
        for details in page.find_elements(By.TAG_NAME, "details"):
            page.execute_script("arguments[0].open = true", details)
        Shown(page, PARTLY_FALSE.case)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width

    def test_report_is_dark_and_light(self, page: Any) -> None:
        ground, text = brightness(page)
        assert ground > 200 > text
        show(page, dark=True)
        ground, text = brightness(page)
        assert ground < 60 < 200 < text

    def test_print_shows_pictures_and_no_controls(self, page: Any) -> None:
        viewer = Shown(page, PARTLY_FALSE.case)
        show(page, media="print")
        assert viewer.canvas.is_displayed()
        assert not viewer.find(".layers").is_displayed()
        show(page)

    @needs_axe
    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_report_has_no_serious_accessibility_violation(self, page: Any, dark: bool, width: int) -> None:
        show(page, dark=dark, width=width)
        for details in page.find_elements(By.TAG_NAME, "details"):
            page.execute_script("arguments[0].open = true", details)
        Shown(page, PARTLY_FALSE.case).press("attention")
        assert serious_violations(page) == []

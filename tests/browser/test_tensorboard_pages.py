"""TensorBoard, started on a small run, shows it in a real browser."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium_pages import needs_chromium
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from mri_seg.networks.attention_unet import AttentionUNet
from mri_seg.training.tensorboard import (
    LAYOUT,
    METRICS,
    LearningRateHandler,
    PrecisionRecallCurve,
    RunDescription,
    TensorBoardSlices,
    write_metrics,
)

pytestmark = [pytest.mark.browser, needs_chromium]

SECONDS = 60  # a page may take to draw on a busy machine

# Many parts of TensorBoard are web components, whose inside neither XPath nor textContent sees.
DEEP = """
function visit(root, see) {
    for (const node of root.childNodes) {
        see(node);
        if (node.shadowRoot) visit(node.shadowRoot, see);
        if (!["SCRIPT", "STYLE"].includes(node.nodeName)) visit(node, see);
    }
}
"""
TEXT = DEEP + "let text = ''; visit(document.body, n => { if (n.nodeType == 3) text += n.data; }); return text;"
PICTURES = (
    DEEP
    + "const sizes = []; visit(document.body, n => { if (n.nodeName == 'IMG' && n.naturalWidth) "
    + "sizes.push([n.naturalWidth, n.naturalHeight]); }); return sizes;"
)
LINES = (
    DEEP
    + "let lines = 0; visit(document.body, n => { if (n.nodeName == 'path' && n.getAttribute('d')?.includes('L') "
    + "&& n.getAttribute('class')?.includes('line')) lines += 1; }); return lines;"
)


def make_run(folder: Path, epochs: int = 3) -> None:
    """Write what a training writes, without training."""
    (folder / "config.json").write_text('{"epochs": 3}\n')
    label = torch.zeros(1, 64, 64, 3)
    label[0, 20:40, 20:40, 1] = 1
    network = AttentionUNet(channels=(2, 4, 8, 16, 32))
    with SummaryWriter(str(folder)) as writer:
        trainer = Engine(lambda engine, batch: writer.add_scalar("train/loss", 1 / engine.state.iteration, batch))
        output = [{"probability": torch.rand(1, 64, 64, 3), "label": label}]
        validator = Engine(lambda engine, batch: output)
        validator.network, validator.state.best_metric_epoch = network, epochs

        def validate(engine: Engine) -> None:
            validator.state.metrics = {name: 0.25 + 0.1 * engine.state.epoch for name in METRICS}
            validator.state.epoch = engine.state.epoch - 1
            validator.run([0], max_epochs=engine.state.epoch, epoch_length=1)

        optimizer = torch.optim.SGD(network.parameters(), lr=0.125)
        validator.add_event_handler(Events.EPOCH_COMPLETED, write_metrics, writer)
        TensorBoardSlices([{"image": torch.randn(1, 64, 64, 3), "label": label}] * 2, summary_writer=writer).attach(
            validator
        )
        PrecisionRecallCurve(writer).attach(validator)
        LearningRateHandler(optimizer, summary_writer=writer).attach(trainer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
        RunDescription(
            validator,
            network,
            {"epochs": epochs, "learning_rate": 0.125, "roi_size": [48, 64]},
            config_file=folder / "config.json",
            summary_writer=writer,
        ).attach(trainer)
        trainer.run(range(4), max_epochs=epochs)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until(true: object, seconds: float = SECONDS) -> bool:
    """Whether a function becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.25)
    return False


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a TensorBoard that shows a made run."""
    folder = tmp_path_factory.mktemp("runs") / "made"
    folder.mkdir()
    make_run(folder)
    port = free_port()
    command = ["-m", "tensorboard.main", "--logdir", str(folder.parent), "--host", "127.0.0.1", "--port", str(port)]
    with (folder.parent / "log.txt").open("w") as log:
        server = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
        try:
            found = f"http://127.0.0.1:{port}"
            started = wait_until(lambda: answers(f"{found}/data/runs"))
            assert started, (folder.parent / "log.txt").read_text()
            yield found
        finally:
            server.terminate()
            server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(chromium: Any) -> Any:
    """A window that is large enough for what TensorBoard draws on a page."""
    chromium.set_window_size(1700, 1700)
    return chromium


def open_page(browser: Any, address: str, page: str, words: list[str]) -> None:
    """Open a page of TensorBoard and wait until it shows words."""
    browser.get("about:blank")  # a change of the fragment alone would not load anew
    browser.get(f"{address}/#{page}")
    missing = list(words)

    def shown() -> bool:
        text = browser.execute_script(TEXT)
        missing[:] = [word for word in words if word not in text]
        return not missing

    assert wait_until(shown), f"{page} does not show {missing}"


class TestPages:
    def test_overview_draws_loss_both_protocols_and_learning_rate(self, browser: Any, address: str) -> None:
        open_page(browser, address, "custom_scalars", list(LAYOUT["Overview"]))
        assert wait_until(lambda: browser.execute_script(LINES) >= len(LAYOUT["Overview"]))

    def test_tensorboard_lists_scalars(self, browser: Any, address: str) -> None:
        tags = ["train/loss", "train/learning_rate", *(f"validation/{name}" for name in METRICS)]
        open_page(browser, address, "timeseries", tags)

    def test_image_is_drawn_with_a_slider_of_epochs(self, browser: Any, address: str) -> None:
        open_page(browser, address, "images", ["validation/slices and attention of each gate", "step"])
        assert wait_until(lambda: browser.execute_script(PICTURES)), "no picture was drawn"
        ((width, height),) = browser.execute_script(PICTURES)
        assert width > 100
        assert height > 60

    def test_runs_compare_by_hyperparameters_and_metrics(self, browser: Any, address: str) -> None:
        words = ["learning_rate", "0.12500", "48 x 64", "validation/patient_dice", "validation_best/patient_dice"]
        open_page(browser, address, "hparams", [*words, "0.55000"])

    def test_precision_recall_curve_is_drawn(self, browser: Any, address: str) -> None:
        open_page(browser, address, "pr_curves", ["validation/precision and recall of voxels"])
        assert wait_until(lambda: browser.execute_script(LINES) >= 1)

    def test_config_and_network_can_be_read(self, browser: Any, address: str) -> None:
        open_page(browser, address, "text", ['{"epochs": 3}', "AttentionGate", "whole network"])

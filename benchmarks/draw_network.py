"""Draw the network as SVG, from the network itself: its modules, and the shapes that pass through them.

python benchmarks/draw_network.py bundle/docs/network.svg

draws the network of bundle/configs/train.json; --config draws that of another config.
"""

from __future__ import annotations

import argparse
from html import escape
from pathlib import Path

import torch
import torch.nn as nn
from monai.bundle import ConfigParser

from mri_seg import AttentionUNet

ROOT = Path(__file__).resolve().parent.parent
WIDTH, ROW, TOP, BOX = 900, 92, 118, (216, 56)
ENCODER, GATE, DECODER = 130, 450, 770  # middles of the columns
COLORS = {"encoder": "#d7e8f7", "decoder": "#fde3cd", "gate": "#fff3b8", "plain": "#f1f1f1"}


def trace(network: AttentionUNet, side: int) -> dict[nn.Module, tuple[torch.Size, torch.Size]]:
    """Shapes of the first input and of the first output of each module, from one forward pass."""
    shapes = {}

    def keep(module: nn.Module, inputs: tuple, output: torch.Tensor | tuple) -> None:
        shapes[module] = inputs[0].shape, (output[0] if isinstance(output, tuple) else output).shape

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    first = next(module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))
    dimensions = first.weight.dim() - 2
    image = torch.zeros(1, first.in_channels, *[side] * dimensions)
    with torch.inference_mode():
        shapes[network] = image.shape, network.eval()(image).shape
    for hook in hooks:
        hook.remove()
    return shapes


def describe(shape: torch.Size) -> list[str]:
    """Channels and sides of a feature."""
    channels = f"{shape[1]} channel{'s' if shape[1] > 1 else ''}"
    return [channels, " × ".join(str(n) for n in shape[2:])]


def describe_unit(unit: nn.Module) -> str:
    """What a level computes: its convolutions and whether it is residual."""
    convolutions = [m for m in unit.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)) and max(m.kernel_size) > 1]
    main = getattr(unit, "conv", unit)  # MONAI's residual unit has its shortcut beside `conv`
    convolutions = [m for m in main.modules() if m in convolutions]
    kernel = "×".join(str(n) for n in convolutions[0].kernel_size)
    residual = "residual, " if hasattr(unit, "residual") else ""
    return f"{residual}{len(convolutions)} convolutions of {kernel}"


class Drawing:
    """SVG text, piece by piece."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.pieces: list[str] = []

    def text(self, x: float, y: float, text: str, *, anchor: str = "middle", bold: bool = False) -> None:
        """A line of text."""
        weight = ' font-weight="bold"' if bold else ""
        self.pieces.append(f'<text x="{x}" y="{y}" font-size="16" text-anchor="{anchor}"{weight}>{escape(text)}</text>')

    def box(self, x: float, y: float, lines: list[str], color: str, size: tuple[int, int] = BOX) -> None:
        """A box whose middle is at (x, y)."""
        width, height = size
        self.pieces.append(
            f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="6" '
            f'fill="{COLORS[color]}" stroke="#444"/>'
        )
        for n, line in enumerate(lines):
            self.text(x, y + 6 + 20 * (n - (len(lines) - 1) / 2), line, bold=n == 0)

    def arrow(self, *points: tuple[float, float]) -> None:
        """An arrow along these points."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.pieces.append(
            f'<polyline points="{path}" fill="none" stroke="#444" stroke-width="1.6" marker-end="url(#tip)"/>'
        )

    def svg(self, title: str) -> str:
        """The whole drawing."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
                'font-family="Helvetica, Arial, sans-serif" role="img">',
                f"<title>{escape(title)}</title>",
                '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
                'orient="auto"><path d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>',
                f'<rect width="{WIDTH}" height="{self.height}" fill="white"/>',
                *self.pieces,
                "</svg>\n",
            ]
        )


def draw(network: AttentionUNet, side: int) -> str:
    """The drawing of a network for square slices (or cubes) of this side."""
    shapes = trace(network, side)
    levels = len(network.encoders)
    drawing = Drawing(TOP + ROW * levels + 96)
    half_width, half_height = BOX[0] / 2, BOX[1] / 2
    rows = [TOP + ROW * level + half_height for level in range(levels)]

    before, after = shapes[network]
    for x, name, shape in ((ENCODER, "Input", before), (DECODER, "Logits", after)):
        drawing.box(x, 44, [f"{name}: {describe(shape)[0]}", describe(shape)[1]], "plain")
    drawing.arrow((ENCODER, 44 + half_height), (ENCODER, rows[0] - half_height))
    drawing.arrow((DECODER, rows[0] - half_height), (DECODER, 44 + half_height))
    if network.stem_stride > 1:
        drawing.text(ENCODER + 10, 96, f"stride {network.stem_stride}", anchor="start")
        drawing.text(DECODER - 10, 96, f"1×1, {network.interpolation} ×{network.stem_stride}", anchor="end")

    for level, encoder in enumerate(network.encoders[:-1]):
        y, place = rows[level], levels - 2 - level
        gate, decoder = network.gates[place], network.decoders[place]
        hidden = shapes[gate.project_gate][1][1]
        drawing.box(ENCODER, y, describe(shapes[encoder][1]), "encoder")
        drawing.box(GATE, y, ["attention gate", f"{hidden} hidden channels"], "gate", (190, BOX[1]))
        drawing.box(DECODER, y, describe(shapes[decoder][1]), "decoder")
        drawing.arrow((ENCODER + half_width, y), (GATE - 95, y))
        drawing.arrow((GATE + 95, y), (DECODER - half_width, y))
        drawing.arrow((ENCODER, y + half_height), (ENCODER, rows[level + 1] - half_height))
        if level < levels - 2:
            drawing.arrow((DECODER, rows[level + 1] - half_height), (DECODER, y + half_height))
        # The upsampled decoder feature is the gating signal of the skip connection that it joins.
        drawing.arrow((DECODER, y + half_height + 14), (GATE, y + half_height + 14), (GATE, y + half_height))
    last = rows[-1]
    drawing.box(ENCODER, last, describe(shapes[network.encoders[-1]][1]), "encoder")
    drawing.arrow((ENCODER + half_width, last), (DECODER, last), (DECODER, rows[-2] + half_height))

    parameters = sum(p.numel() for p in network.parameters())
    up = "×".join(str(n) for n in network.upsamplings[0].kernel_size)
    bottom = last + half_height + 34
    drawing.text(WIDTH / 2, bottom, f"Each blue or orange box: {describe_unit(network.encoders[0])}.")
    drawing.text(
        WIDTH / 2, bottom + 24, f"Down: max pooling by {network.pool.kernel_size}. Up: {up} transposed convolutions."
    )
    drawing.text(WIDTH / 2, bottom + 48, f"{parameters:,} parameters.")
    return drawing.svg(f"{type(network).__name__}: {levels} levels, {parameters:,} parameters")


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("svg", type=Path, help="file to write")
    parser.add_argument("--config", type=Path, default=ROOT / "bundle" / "configs" / "train.json")
    parser.add_argument("--side", type=int, default=256, help="rows and columns of the input")
    args = parser.parse_args()
    config = ConfigParser()
    config.read_config(args.config)
    network = config.get_parsed_content("network_def")
    args.svg.write_text(draw(network, args.side), encoding="utf-8")


if __name__ == "__main__":
    main()

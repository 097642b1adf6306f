"""The command ``mri-seg`` and its subcommands. Nothing heavy is imported before a subcommand runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mri_seg import __version__
from mri_seg.cli.config_command import ConfigCommand
from mri_seg.cli.workflow import INTERRUPTED, run_workflow
from mri_seg.utils.bundle_folder import bundle_folder

__all__ = ["cli", "main"]

_STATUS = (
    "Exit status: 0 if all went well; 1 after an error, or if a case failed or a defect was found; 2 if the command "
    "line is wrong; 130 after Ctrl-C."
)
_SETTINGS: dict[str, Any] = {
    "max_content_width": 120,
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("-", "_"),
}


class _InOrder(click.Group):
    """A group that lists its commands in the order in which they were added, and says when one is interrupted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C has the exit status of shells from the first import on."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


class _ModuleCommand(click.Command):
    """A command of a module that parses its own command line.

    Args:
        name: name of the command.
        module: the module, which has ``main(arguments, prog)``.
        before: arguments that are put before those of the user.
        subcommand: whether the module's parser has subcommands, of which this is one.
        help: one line for the list of commands.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        before: Callable[[], list[str]] = list,
        subcommand: bool = False,
        help: str,
    ) -> None:
        settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
        words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
        super().__init__(name, params=[words], help=help, context_settings=settings, add_help_option=False)
        self.module = module
        self.before = before
        self.prog = "mri-seg" if subcommand else f"mri-seg {name}"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave all words to the module."""
        ctx.params["words"] = tuple(args)
        return []

    def invoke(self, ctx: click.Context) -> Any:
        """Call the module; the exit status is its own."""
        main: Callable[[list[str], str], int] = importlib.import_module(self.module).main
        ctx.exit(main([*self.before(), *ctx.params["words"]], self.prog))


@click.group(
    cls=_InOrder,
    context_settings=_SETTINGS,
    epilog=f"{_STATUS} `mri-seg COMMAND --help` describes a command.",
)
@click.version_option(__version__, prog_name="mri-seg")
def cli() -> None:
    """Segment brain tumours on FLAIR MRI, and train and evaluate the network that does it."""


def main() -> None:
    """Run the command line."""
    cli(prog_name="mri-seg")


def _place_inputs(command: str) -> Callable[[list[str], dict[str, Any]], dict[str, Any]]:
    """A function that puts the inputs and the output of a command into the keys that the user gave."""
    usage = f"mri-seg {command} INPUT... OUTPUT"

    def place(paths: list[str], given: dict[str, Any]) -> dict[str, Any]:
        paths = list(paths)
        if "output_dir" not in given:
            if len(paths) < 1 or (len(paths) < 2 and "dataset_dir" not in given):
                raise click.UsageError(f"Give one or more inputs and the output: {usage}")
            given = {**given, "output_dir": paths.pop()}
        if "dataset_dir" not in given:
            if not paths:
                raise click.UsageError(f"Give one or more inputs: {usage}")
            return {**given, "dataset_dir": paths[0] if len(paths) == 1 else paths}
        if paths:
            raise click.UsageError(f"--dataset_dir is given, and {paths[0]} too: give the inputs once.")
        return given

    return place


def _place_dataset(paths: list[str], given: dict[str, Any]) -> dict[str, Any]:
    if len(paths) + ("dataset_dir" in given) != 1:
        raise click.UsageError(f"Expected one folder, DATASET, but {len(paths) + ('dataset_dir' in given)} are given.")
    return {**given, "dataset_dir": paths[0]} if paths else given


def _cases_command(name: str, configs: list[str], **options: Any) -> ConfigCommand:
    """A command that takes files and folders of cases and a place for its results."""
    return ConfigCommand(
        name,
        configs=configs,
        run=run_workflow,
        positional="INPUT... OUTPUT",
        place=_place_inputs(name),
        placed=("dataset_dir", "output_dir"),
        dry_run=True,
        epilog=_STATUS,
        **options,
    )


def _dataset_command(name: str, configs: list[str], **options: Any) -> ConfigCommand:
    """A command that takes a data set."""
    return ConfigCommand(
        name, configs=configs, run=run_workflow, positional="DATASET", place=_place_dataset, epilog=_STATUS, **options
    )


@click.command(
    "check",
    short_help="Check training data, or list what segment would find.",
    epilog=_STATUS,
    context_settings={"ignore_unknown_options": True},
    options_metavar="",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def _check(ctx: click.Context, folder: Path, options: tuple[str, ...]) -> None:
    """Check FOLDER before it is used.

    Of training data, in which images have masks, every defect is reported; OPTIONS are those of training that matter
    for it: --datalist, --split, --seed, --label_values, --sequences, --volume, --spacing. Of any other folder or file,
    the cases are listed that `segment` would find, and what it would pass over.
    """
    from mri_seg.cli.check import check

    ctx.exit(check(folder, options, cli.commands["segment"]))


@click.command("serve", short_help="Serve the bundle with MONAI Label to 3D Slicer.", epilog=_STATUS)
@click.argument("studies", type=click.Path(path_type=Path, file_okay=False))
@click.option("--port", default=8000, show_default=True, help="Where to serve, on this machine only.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/monai_label"),
    show_default=True,
    help="Folder of MONAI Label's app, which is made once.",
)
@click.pass_context
def _serve(ctx: click.Context, studies: Path, port: int, folder: Path) -> None:
    """Serve STUDIES, a folder of NIfTI or NRRD volumes, with MONAI Label to 3D Slicer and other viewers.

    Submitted labels are added to STUDIES, which may be empty. MONAI Label must be installed.
    """
    from mri_seg.cli.serve import serve_here

    try:
        ctx.exit(serve_here(studies, folder=folder, port=port))
    except (ImportError, OSError, RuntimeError) as error:
        click.echo(f"error: {error}", err=True)
        ctx.exit(1)


_COMMANDS: tuple[click.Command, ...] = (
    _cases_command(
        "segment",
        ["inference.json"],
        short_help="Segment tumours in files and folders.",
        help="Segment tumours in files and folders: DICOM, NIfTI, NRRD, MHA, MGZ, or slices as TIFF, PNG or JPEG.\n\n"
        "Each INPUT is a file or a folder, nested to any depth. OUTPUT is a folder, which gets a folder for each case, "
        "index.html, summary.csv and summary.json; or, for one case, a file such as mask.nii.gz, which gets the mask "
        "alone.",
    ),
    _cases_command(
        "follow",
        ["inference.json", "follow_up.json"],
        short_help="Follow patients over time: how fast does a tumour grow?",
        help="Segment the scans in files and folders, group them by patient, order them by time, and measure the "
        "change.\n\nOUTPUT is a folder. It gets what segment writes, and its folder follow_up gets, for each patient, "
        "a table, a page, the voxels gained and lost, and the transforms that bring the scans to one place.",
    ),
    _dataset_command(
        "train",
        ["train.json"],
        further="published_recipe.json",
        short_help="Train the network on a data set.",
        help="Train the network on DATASET, a folder of cases with labels. The same command resumes a run that was "
        "stopped, if it has the same --output_dir.",
    ),
    _dataset_command(
        "evaluate",
        ["train.json", "evaluate.json"],
        further="published_recipe.json",
        short_help="Evaluate weights on a section of a data set.",
        help="Evaluate weights on a section of DATASET, a folder of cases with labels: metrics with intervals, tables, "
        "and a report.",
    ),
    _dataset_command(
        "quantize",
        ["train.json", "quantize.json"],
        short_help="Make 8-bit weights for a fast CPU runtime.",
        help="Make 8-bit weights of float ones, for --runtime openvino-int8. The ranges of the activations are found "
        "on training slices of DATASET.",
    ),
    _ModuleCommand("report", "mri_seg.report.__main__", help="Write the report of an evaluation as an HTML file."),
    _check,
    _ModuleCommand(
        "fetch",
        "mri_seg.datasets.lgg.__main__",
        before=lambda: ["fetch"],
        subcommand=True,
        help="Download the TCGA-LGG data set, and check it.",
    ),
    _ModuleCommand("phantom", "mri_seg.datasets.phantom.__main__", help="Write synthetic cases for trying out."),
    _ModuleCommand(
        "export",
        "mri_seg.export.__main__",
        before=lambda: ["--bundle_root", str(bundle_folder())],
        help="Export the bundle to a folder for others.",
    ),
    _serve,
)

for _command in _COMMANDS:
    cli.add_command(_command)

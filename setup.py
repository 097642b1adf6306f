"""Build hook: the bundle, which lies at the top of the repository, goes into the package as ``mri_seg/_bundle``.

An editable install copies nothing: :py:func:`mri_seg.bundle_folder` finds the files of the checkout.
"""

from functools import cached_property
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BUNDLE = Path("bundle")
PATTERNS = (
    "LICENSE",
    "configs/*",
    "docs/*",
    "models/SHA256SUMS",
    "models/quality.json",
    "models/*.pt",
    "models/*.xml",
    "models/*.bin",
)
"""What goes in; in ``models``, TorchScript and ONNX that were exported there do not."""


def _packed() -> list[str]:
    files = sorted(file for pattern in PATTERNS for file in BUNDLE.glob(pattern) if file.is_file())
    kept = [file for file in files if file.suffix != ".py" and not file.name.startswith(".")]
    return [file.relative_to(BUNDLE).as_posix() for file in kept]


class BuildWithBundle(build_py):
    """Build the package with the bundle as its data."""

    def get_data_files_without_manifest(self) -> list[tuple[str, str, str, list[str]]]:
        """Package, folder of the sources, folder to copy to, and names of all data; the sdist takes them from here."""
        packed = ("mri_seg", str(BUNDLE), str(Path(self.build_lib, "mri_seg", "_bundle")), _packed())
        return [*super().get_data_files_without_manifest(), packed]

    @cached_property
    def data_files(self) -> list[tuple[str, str, str, list[str]]]:
        """The same, for the wheel."""
        return self.get_data_files_without_manifest()


setup(cmdclass={"build_py": BuildWithBundle})

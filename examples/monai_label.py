"""Serve the bundle with MONAI Label to 3D Slicer and other viewers, and check that the masks are those of the bundle.

    python examples/monai_label.py serve STUDIES
    python examples/monai_label.py check VOLUME.nii.gz

STUDIES is a folder of NIfTI or NRRD volumes, to which submitted labels are added; it may be empty. ``check`` segments a
volume through the server's REST interface and with ``bundle run inference``, and compares the masks voxel by voxel.

The first run creates a virtual environment in ``runs/monai_label`` and copies the bundle into MONAI Label's app beside
it; delete that folder to start again. MONAI Label needs Python 3.10 or 3.11. The server listens only on this machine.
Where MONAI Label is installed already, ``mri-seg serve STUDIES`` serves.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import venv
from pathlib import Path

from mri_seg.cli.serve import LABEL, NAME, ask, lay_out, serve, start_server, wait_for

ROOT = Path(__file__).resolve().parents[1]

# The requirements of MONAI Label, except sam2, which its monaibundle app does not need and which builds only for GPUs;
# monai, which this project installs; and two packages that require NumPy below 2, but work with NumPy 2. PyTorch and
# NumPy stay at the installed versions.
OLD = ["pydicom-seg==0.4.1", "numpymaxflow"]
REQUIREMENTS = """
import importlib.metadata as metadata, re
names = [name for name in metadata.requires("monailabel") if not re.match("sam2|monai|pydicom-seg|numpymaxflow", name)]
names += [f"{name}=={metadata.version(name).split('+')[0]}" for name in ("torch", "numpy")]
print("\\n".join(names + ["setuptools", "psutil", "scikit-image", "SimpleITK", "jsonschema", "torchvision"]))
"""

COMPARE = """
import sys, nibabel, numpy
label, own = (nibabel.load(name) for name in sys.argv[1:])
same_grid = label.shape == own.shape and numpy.allclose(label.affine, own.affine, atol=1e-4)
a, b = (numpy.asarray(image.dataobj) for image in (label, own))
different = int((a != b).sum()) if same_grid else a.size
print(f"{own.shape} voxels, of tumour {int((a > 0).sum())} by MONAI Label and {int((b > 0).sum())} by bundle run; "
      f"different: {different}" + ("" if same_grid else " (another grid)"))
sys.exit(1 if different else 0)
"""


def install(folder: Path, torch: str | None) -> Path:
    """Create the virtual environment with MONAI Label and this project if it does not exist; returns its Python."""
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    finished = folder / "venv" / "finished"
    if finished.is_file() and finished.read_text() == LABEL:
        return python
    if not (3, 10) <= sys.version_info[:2] <= (3, 11):
        raise SystemExit(f"MONAI Label needs Python 3.10 or 3.11, this is {sys.version.split()[0]}.")
    venv.create(folder / "venv", with_pip=True, clear=True)

    def pip(*arguments: str) -> None:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], check=True)

    def has(module: str) -> bool:
        return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0

    print("Installing MONAI Label, which takes a few minutes", flush=True)
    if torch:
        pip(torch)
    pip("--editable", str(ROOT))
    pip("--no-deps", LABEL, *OLD)
    wanted = subprocess.run([python, "-c", REQUIREMENTS], check=True, capture_output=True, text=True).stdout
    pip(*wanted.splitlines())
    if not has("torchvision"):
        # A torchvision built for GPUs does not load with a torch built for CPUs. This is the last version that loads
        # anyway, without its operators, which MONAI Label does not use.
        pip("--no-deps", "torchvision==0.16.2")
    for file in (folder / "venv").rglob("pydicom_seg/*.py"):  # https://github.com/razorx89/pydicom-seg/issues/60
        file.write_text(file.read_text().replace("pydicom._storage_sopclass_uids", "pydicom.uid"))
    finished.write_text(LABEL)
    return python


def check(folder: Path, python: Path, volume: Path) -> int:
    """Compare the masks of MONAI Label and of the bundle; returns 0 if they are equal."""
    ending = ".nii.gz" if volume.name.endswith(".nii.gz") else volume.suffix
    with tempfile.TemporaryDirectory(dir=folder) as work, socket.socket() as free:
        app, studies = Path(work, "app"), Path(work, "studies")
        lay_out(python, app)
        studies.mkdir()
        shutil.copy(volume, studies / f"volume{ending}")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        url = f"http://127.0.0.1:{port}"
        with open(folder / "server.log", "wb") as log:
            server = start_server(python, app, studies, port, stdout=log, stderr=log)
            try:
                info = wait_for(server, url)
                for name, model in info["models"].items():
                    print(f"{info['name']} serves {name}: {model['type']} of {model['labels']}")
                mask = Path(work, "mask.nii.gz")
                question = f"{url}/infer/{NAME}?image=volume&output=image"
                mask.write_bytes(ask(question, b""))
            except urllib.error.HTTPError as error:
                raise SystemExit(f"MONAI Label failed ({error}): see {folder / 'server.log'}") from error
            finally:
                server.terminate()
                server.wait()
        command = [python, "-m", "monai.bundle", "run", "inference", "--bundle_root", ROOT / "bundle"]
        command += ["--config_file", ROOT / "bundle/configs/inference.json", "--dataset_dir", studies]
        command += ["--output_dir", Path(work, "own"), "--outputs", "mask"]
        run = subprocess.run(command, capture_output=True, text=True)
        own = next(Path(work, "own").rglob("*_mask.nii.gz"), None)
        if own is None:
            raise SystemExit(f"bundle run inference failed: {run.stdout}{run.stderr}")
        return subprocess.run([python, "-c", COMPARE, mask, own]).returncode


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("serve", "check"))
    parser.add_argument("path", type=Path, help="folder of studies to serve, or volume to check")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "monai_label", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="where to serve; default: %(default)s")
    parser.add_argument("--torch", metavar="REQUIREMENT", help="a certain PyTorch, such as torch==2.13.0")
    options = parser.parse_args()
    if options.command == "check" and not options.path.is_file():
        parser.error(f"{options.path}: no such file")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = install(folder, options.torch)
    try:
        if options.command == "serve":
            return serve(folder, python, options.path, options.port)
        return check(folder, python, options.path)
    except RuntimeError as error:  # the server did not start
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())

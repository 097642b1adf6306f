"""Serve the bundle with MONAI Label to 3D Slicer and other viewers, and check that the masks are those of the bundle.

    python examples/monai_label.py serve STUDIES
    python examples/monai_label.py check VOLUME.nii.gz

STUDIES is a folder of NIfTI or NRRD volumes, to which submitted labels are added; it may be empty. ``check`` segments a
volume through the server's REST interface and with ``bundle run inference``, and compares the masks voxel by voxel.

The first run creates a virtual environment in ``runs/monai_label`` and copies the bundle into MONAI Label's app beside
it; delete that folder to start again. MONAI Label needs Python 3.10 or 3.11. The server listens only on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "flair_tumour_segmentation"
LABEL = "monailabel==0.8.5"

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


def lay_out(python: Path, app: Path) -> None:
    """Copy MONAI Label's app for bundles, and the bundle into it, if they do not exist."""
    model = app / "model" / NAME
    if model.is_dir():
        return
    shutil.rmtree(app, ignore_errors=True)
    app.parent.mkdir(parents=True, exist_ok=True)
    download = ["apps", "--name", "monaibundle", "--download", "--output", str(app.parent)]
    subprocess.run([python, "-m", "monailabel.main", *download], check=True, capture_output=True)
    shutil.copytree(app.parent / "monaibundle", app)
    shutil.rmtree(app.parent / "monaibundle")
    shutil.copytree(ROOT / "bundle", model)
    # Training from a viewer starts from the bundle's weights, and replaces them with the best ones.
    file = model / "configs" / "train.json"
    config = json.loads(file.read_text())
    config |= {"initial_weights": "$@bundle_root + '/models/model.pt'", "save_to_bundle": "best"}
    file.write_text(json.dumps(config, indent=4))


def start(python: Path, app: Path, studies: Path, port: int, **options: object) -> subprocess.Popen:
    """Start the server."""
    command = [python, "-m", "monailabel.main", "start_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--app", app.resolve(), "--studies", studies.resolve(), "--conf", "models", NAME]
    command += ["--conf", "zoo_source", "ngc"]  # do not access the model zoo: the bundle is local
    path = os.pathsep.join([str(python.absolute().parent), os.environ.get("PATH", "")])
    return subprocess.Popen(command, cwd=app.parent, env={**os.environ, "PATH": path}, **options)


def ask(url: str, data: bytes | None = None) -> bytes:
    """Send a request and return the answer."""
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=600) as answer:
        return answer.read()


def wait_for(server: subprocess.Popen, url: str, seconds: float = 180) -> dict:
    """Wait until the server is up, and return its description."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            return json.loads(ask(f"{url}/info/"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise SystemExit("The server did not start: see its output above, or server.log.")


def serve(folder: Path, python: Path, studies: Path, port: int) -> int:
    """Serve until stopped."""
    lay_out(python, folder / "app")
    studies.mkdir(parents=True, exist_ok=True)
    server = start(python, folder / "app", studies, port)
    try:
        wait_for(server, f"http://127.0.0.1:{port}")
        print(f"\nMONAI Label server: http://127.0.0.1:{port}  (Ctrl-C stops it)\n", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


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
            server = start(python, app, studies, port, stdout=log, stderr=log)
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
    if options.command == "serve":
        return serve(folder, python, options.path, options.port)
    return check(folder, python, options.path)


if __name__ == "__main__":
    sys.exit(main())

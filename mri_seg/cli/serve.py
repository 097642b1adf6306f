"""Serve the bundle with MONAI Label to 3D Slicer and other viewers.

MONAI Label is an app beside the bundle: its app for bundles is copied to a folder, and the bundle into it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.utils.bundle_folder import bundle_folder

__all__ = ["LABEL", "NAME", "ask", "lay_out", "require_monai_label", "serve", "serve_here", "start_server", "wait_for"]

LABEL = "monailabel==0.8.5"
"""The version of MONAI Label that was tried."""

NAME = "flair_tumour_segmentation"
"""Name of the bundle in MONAI Label."""


def require_monai_label() -> None:
    """Check that MONAI Label is installed.

    Raises:
        ImportError: when it is not; says how to install it.
    """
    if importlib.util.find_spec("monailabel") is None:
        raise ImportError(
            f'serve needs MONAI Label: pip install "{LABEL}" (Python 3.10 or 3.11). In a checkout, '
            "`python examples/monai_label.py serve STUDIES` installs it into an environment of its own."
        )


def lay_out(python: PathLike | str, app: Path) -> None:
    """Copy MONAI Label's app for bundles, and the bundle into it, if they do not exist.

    Args:
        python: the Python in whose environment MONAI Label is.
        app: the folder of the app.
    """
    model = app / "model" / NAME
    if model.is_dir():
        return
    shutil.rmtree(app, ignore_errors=True)
    app.parent.mkdir(parents=True, exist_ok=True)
    download = ["apps", "--name", "monaibundle", "--download", "--output", str(app.parent)]
    subprocess.run([python, "-m", "monailabel.main", *download], check=True, capture_output=True)
    shutil.copytree(app.parent / "monaibundle", app)
    shutil.rmtree(app.parent / "monaibundle")
    shutil.copytree(bundle_folder(), model)
    # Training from a viewer starts from the bundle's weights, and replaces them with the best ones.
    file = model / "configs" / "train.json"
    config = json.loads(file.read_text())
    config |= {"initial_weights": "$@bundle_root + '/models/model.pt'", "save_to_bundle": "best"}
    file.write_text(json.dumps(config, indent=4))


def start_server(python: PathLike | str, app: Path, studies: Path, port: int, **options: Any) -> subprocess.Popen:
    """Start the server.

    Args:
        python: the Python in whose environment MONAI Label is.
        app: the folder of the app.
        studies: folder of NIfTI or NRRD volumes.
        port: port on this machine.
        options: further arguments of ``subprocess.Popen``.
    """
    command = [str(python), "-m", "monailabel.main", "start_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--app", str(app.resolve()), "--studies", str(studies.resolve()), "--conf", "models", NAME]
    command += ["--conf", "zoo_source", "ngc"]  # do not access the model zoo: the bundle is local
    path = os.pathsep.join([str(Path(python).absolute().parent), os.environ.get("PATH", "")])
    return subprocess.Popen(command, cwd=app.parent, env={**os.environ, "PATH": path}, **options)


def ask(url: str, data: bytes | None = None) -> bytes:
    """Send a request and return the answer."""
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=600) as answer:
        return answer.read()


def wait_for(server: subprocess.Popen, url: str, seconds: float = 180) -> dict:
    """Wait until the server is up, and return its description.

    Raises:
        RuntimeError: when it ends or is not up in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            return json.loads(ask(f"{url}/info/"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError("the server did not start: see its output above, or server.log.")


def serve(folder: Path, python: PathLike | str, studies: Path, port: int) -> int:
    """Serve until stopped.

    Args:
        folder: folder of the app; the app is made in it once.
        python: the Python in whose environment MONAI Label is.
        studies: folder of NIfTI or NRRD volumes, to which submitted labels are added; created if it does not exist.
        port: port on this machine.

    Returns:
        the exit status.
    """
    lay_out(python, folder / "app")
    studies.mkdir(parents=True, exist_ok=True)
    server = start_server(python, folder / "app", studies, port)
    try:
        wait_for(server, f"http://127.0.0.1:{port}")
        print(f"\nMONAI Label server: http://127.0.0.1:{port}  (Ctrl-C stops it)\n", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def serve_here(studies: Path, *, folder: Path, port: int) -> int:
    """Serve with the MONAI Label of this environment; see :py:func:`serve`.

    Raises:
        ImportError: when MONAI Label is not installed.
    """
    require_monai_label()
    folder.mkdir(parents=True, exist_ok=True)
    return serve(folder.resolve(), sys.executable, studies, port)

"""MONAI Label takes the bundle as it is: what it reads is there, and gives the masks of ``bundle run inference``.

MONAI Label reads parts of inference.json and runs them in its own way (tasks/infer/bundle.py in its package): the
transforms one after the other on a dictionary of the request, the network of ``network_def``, no handlers, no writer.
"""

from __future__ import annotations

import json
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.transforms import Compose, LoadImaged
from scipy.spatial.transform import Rotation

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
CONFIGS = BUNDLE / "configs"
OPTIONS = {
    "amp": False,
    "min_lesion_volume": 0,
    "min_brain_fraction": 0,
    "min_lesion_fraction": 0,
    "min_lesion_slices": 1,
}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An oblique NIfTI volume whose pixels are not the network's, in an orientation of its own."""
    rng = np.random.default_rng(0)
    head = np.linalg.norm(np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (36, 5, 44)), indexing="ij")), axis=0)
    turned = np.diag([1.2, 5.5, 1.1, 1])[[0, 2, 1, 3]]  # the second axis upwards
    turned[:3, :3] = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix() @ turned[:3, :3]
    image = nibabel.Nifti1Image((100 * (head < 0.9) + 10 * rng.random(head.shape)).astype(np.float32), turned)
    file = tmp_path_factory.mktemp("studies") / "head.nii.gz"
    nibabel.save(image, file)
    return file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights by which about half of the pixels are tumour, whatever the shipped ones are."""
    torch.manual_seed(1)
    network = ConfigParser(config("inference.json")).get_parsed_content("network_def").eval()
    with torch.no_grad():
        network.head.bias -= network(torch.randn(1, 4, 64, 64)).median()
    path = tmp_path_factory.mktemp("models") / "model.pt"
    torch.save(network.state_dict(), path)
    return path


def config(name: str) -> dict:
    return json.loads((CONFIGS / name).read_text())


def as_monai_label_reads(name: str) -> ConfigParser:
    """A config with the bundle's path and a device given as text, and nothing initialised."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / name))
    parser.config.update({"bundle_root": str(BUNDLE), "device": "cpu"})
    return parser


def mask_of_bundle_run(volume: Path, folder: Path, **options: object) -> nibabel.Nifti1Image:
    workflow = ConfigWorkflow(
        str(CONFIGS / "inference.json"),
        workflow_type="infer",
        bundle_root=str(BUNDLE),
        dataset_dir=str(volume),
        output_dir=str(folder),
        outputs="mask",
        device="$torch.device('cpu')",
        **options,
    )
    workflow.initialize()
    workflow.run()
    return nibabel.load(folder / "head" / "head_mask.nii.gz")


class TestInference:
    def test_parts_run_one_by_one_as_in_a_server_give_the_mask_of_bundle_run(
        self, volume: Path, weights: Path, tmp_path: Path
    ) -> None:
        parser = as_monai_label_reads("inference.json")
        parser.config.update(OPTIONS)
        network = parser.get_parsed_content("network_def")
        network.load_state_dict(torch.load(weights, weights_only=True))
        before, inferer, after = (
            parser.get_parsed_content(key) for key in ("preprocessing", "inferer", "postprocessing")
        )
        assert isinstance(before, Compose)
        assert isinstance(after, Compose)
        data = {"model": "any", "device": "cpu", "image": str(volume), "image_path": str(volume), "label_tag": ""}
        for transform in before.transforms:
            assert not isinstance(transform, LoadImaged), "MONAI Label puts a loader of its own around it"
            data = transform(data)
        with torch.no_grad():
            data["pred"] = inferer(data["image"][None], network.eval())[0]
        for transform in after.transforms:
            data = transform(data)

        # It writes what "pred" holds, in the grid that the image's metadata name.
        expected = mask_of_bundle_run(volume, tmp_path, checkpoint=str(weights), **OPTIONS)
        assert tuple(data["image"].meta["spatial_shape"]) == expected.shape
        np.testing.assert_allclose(data["image"].meta["original_affine"], expected.affine, atol=1e-6)
        np.testing.assert_array_equal(data["pred"][0].numpy(), np.asarray(expected.dataobj))
        assert 0.05 < data["pred"].mean() < 0.95  # or any two masks would agree

    def test_metadata_name_the_label_by_its_value_in_the_mask(self) -> None:
        formats = config("metadata.json")["network_data_format"]
        assert list(formats["inputs"]) == ["image"]
        assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "FLAIR abnormality"}

    def test_the_installed_server_gives_the_mask_of_bundle_run(self, volume: Path, tmp_path: Path) -> None:
        label = pytest.importorskip(
            "monailabel.tasks.infer.bundle", reason="needs MONAI Label, see examples/monai_label.py"
        )
        task = label.BundleInferTask(str(BUNDLE), {})
        assert task.is_valid()
        assert task.info()["labels"] == {"flair abnormality": 1}
        file, _ = task({"model": "any", "device": "cpu", "image": str(volume), "model_filename": "model.pt"})
        found = nibabel.load(file)
        expected = mask_of_bundle_run(volume, tmp_path)  # with the shipped weights, as the server
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))


class TestTraining:
    def test_parts_that_it_puts_its_own_into_are_there(self) -> None:
        parser = as_monai_label_reads("train.json")
        for key in ("train#trainer#max_epochs", "train#dataset#data", "validate#dataset#data", "network", "run"):
            assert parser.get(key) is not None, key

    def test_handlers_are_parts_whose_kind_it_can_read(self) -> None:
        # It looks for a loader among them (tasks/train/bundle.py), and fails at a reference to a part.
        assert [
            handler for handler in as_monai_label_reads("train.json").get("train#handlers") if "_target_" not in handler
        ] == []

    def test_monai_label_training_has_the_epochs_of_the_schedule(self) -> None:
        parser = as_monai_label_reads("train.json")
        parser.config["train"]["trainer"]["max_epochs"] = 7
        parser.config["train"]["dataloader"] = [0, 1, 2]
        assert parser.get_parsed_content("steps") == 21

    def test_monai_label_trains_on_submitted_labels_from_the_weights_it_is_told(
        self, volume: Path, weights: Path, tmp_path: Path
    ) -> None:
        image = nibabel.load(volume)
        label = tmp_path / "label.nii.gz"
        nibabel.save(nibabel.Nifti1Image((image.get_fdata() > 100).astype(np.uint8), image.affine), label)
        cases = [{"image": str(volume), "label": str(label)}]
        # Its own loader comes first, with the bundle's weights; those of the option come after.
        first = {"_target_": "CheckpointLoader", "load_path": str(BUNDLE / "models" / "model.pt"), "strict": False}
        first["load_dict"] = {"model": "$@network"}
        monai.bundle.run(
            run_id="run",
            config_file=str(CONFIGS / "train.json"),
            meta_file=str(CONFIGS / "metadata.json"),
            **{
                "bundle_root": str(BUNDLE),
                "device": "cpu",
                "train#trainer#max_epochs": 1,
                "train#dataset#data": cases,
                "validate#dataset#data": cases,
                "train#handlers": [first, *as_monai_label_reads("train.json").get("train#handlers")],
            },
            initial_weights=str(weights),
            learning_rate=1e-9,
            output_dir=str(tmp_path / "run"),
            spatial_size=[48, 48],
            roi_size=[32, 32],
            slices_per_epoch=4,
            batch_size=2,
            amp=False,
        )
        begun, trained = (torch.load(file, weights_only=True) for file in (weights, tmp_path / "run" / "model.pt"))
        torch.testing.assert_close(trained["head.weight"], begun["head.weight"])
        mean = "encoders.0.conv.unit0.adn.N.running_mean"  # what training changes without learning
        assert not torch.equal(trained[mean], begun[mean])

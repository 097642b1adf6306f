"""One small synthetic data set, written in every form that training understands."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import itk
import nibabel
import numpy as np
import tifffile
from dicom_series import write_series
from PIL import Image

# 0.94 x 0.94 x 5 mm, in the order of axes that slices have: rows to posterior, columns to the left, slices upwards.
AFFINE = np.array([[0, -0.94, 0, 20], [-0.94, 0, 0, 30], [0, 0, 5, -10], [0, 0, 0, 1]], dtype=float)
PATIENTS = ("P01", "P02", "P03", "P04")
SECTIONS = {"training": PATIENTS[:3], "validation": PATIENTS[3:]}
SHAPE = (48, 40, 4)


class Case(NamedTuple):
    """A patient: 8-bit image and label of 0 and 1 ``(H, W, D)``."""

    name: str
    image: np.ndarray
    label: np.ndarray


def make_cases(label_value: int = 1) -> list[Case]:
    """Four heads with a lesion each."""
    rows, columns, slices = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    cases = []
    for number, name in enumerate(PATIENTS):
        random = np.random.default_rng(number)
        head = ((rows - 24) / 20) ** 2 + ((columns - 20) / 17) ** 2 + 0 * slices < 1
        lesion = (rows - 20 - number) ** 2 + (columns - 14 - number) ** 2 + 9 * (slices - 2) ** 2 < 40
        image = np.where(head, random.integers(70, 110, SHAPE), random.integers(0, 4, SHAPE)) + 90 * lesion
        cases.append(Case(name, image.astype(np.uint8), (label_value * lesion).astype(np.uint8)))
    return cases


def nifti(file: Path, volume: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, affine), file)


def itk_image(file: Path, volume: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """A file of ITK's formats (LPS)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = itk.image_from_array(np.ascontiguousarray(volume.transpose(2, 1, 0)))  # axes of numpy are ITK's reversed
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    image.SetSpacing(sizes.tolist())
    image.SetDirection(itk.matrix_from_array(lps[:, :3] / sizes))
    image.SetOrigin(lps[:, 3].tolist())
    itk.imwrite(image, str(file))


def lgg(root: Path, cases: list[Case]) -> None:
    for case in cases:
        (root / case.name).mkdir(parents=True)
        for k in range(SHAPE[2]):
            pixels = np.repeat(case.image[..., k, None], 3, axis=-1)
            tifffile.imwrite(root / case.name / f"{case.name}_{k + 1}.tif", pixels, photometric="rgb")
            mask = 255 * (case.label[..., k] > 0).astype(np.uint8)
            tifffile.imwrite(root / case.name / f"{case.name}_{k + 1}_mask.tif", mask, photometric="minisblack")


def beside(suffix: str) -> Callable[[Path, list[Case]], None]:
    """Images with their labels beside them, as NIfTI; every second is stored with its axes flipped and swapped."""

    def write(root: Path, cases: list[Case]) -> None:
        for number, case in enumerate(cases):
            for name, volume in ((case.name, case.image), (f"{case.name}{suffix}", case.label)):
                nifti(root / f"{name}.nii.gz", volume)
                if number % 2:
                    canonical = nibabel.as_closest_canonical(nibabel.load(root / f"{name}.nii.gz"))
                    volume = np.asarray(canonical.dataobj)
                    nifti(root / f"{name}.nii.gz", volume, canonical.affine)

    return write


def folders(labels: str, write: Callable[[Path, np.ndarray], None], suffix: str) -> Callable[[Path, list[Case]], None]:
    """Folders of images and of labels with the same names."""

    def write_all(root: Path, cases: list[Case]) -> None:
        for case in cases:
            write(root / "images" / f"{case.name}{suffix}", case.image)
            write(root / labels / f"{case.name}{suffix}", 255 * (case.label > 0).astype(np.uint8))

    return write_all


def slices(root: Path, cases: list[Case]) -> None:
    """Numbered PNG slices in folders of images and of masks."""
    for case in cases:
        for folder, volume in (("images", case.image), ("masks", 255 * (case.label > 0).astype(np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for k in range(SHAPE[2]):
                Image.fromarray(volume[..., k]).save(root / folder / f"{case.name}_{k + 1:03d}.png")


def brats(root: Path, cases: list[Case]) -> None:
    """A folder a case, with four sequences and a label of float32."""
    for case in cases:
        for sequence in ("t1", "t1ce", "t2"):
            nifti(root / case.name / f"{case.name}_{sequence}.nii.gz", 255 - case.image)
        nifti(root / case.name / f"{case.name}_flair.nii.gz", case.image)
        nifti(root / case.name / f"{case.name}_seg.nii.gz", case.label.astype(np.float32))


def nnunet(root: Path, cases: list[Case]) -> None:
    for case in cases:
        nifti(root / "imagesTr" / f"{case.name}_0000.nii.gz", 255 - case.image)
        nifti(root / "imagesTr" / f"{case.name}_0001.nii.gz", case.image)
        nifti(root / "labelsTr" / f"{case.name}.nii.gz", case.label)
    names = {"0": "T1", "1": "FLAIR"}
    about = {"channel_names": names, "labels": {"background": 0, "tumor": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps({**about, "numTraining": len(cases)}))


def decathlon(root: Path, cases: list[Case]) -> None:
    """4D images of four sequences, of which FLAIR is the first, and test images without labels."""
    entries = []
    for case in cases:
        other = 255 - case.image
        nifti(root / "imagesTr" / f"{case.name}.nii.gz", np.stack([case.image, other, other, other], axis=-1))
        nifti(root / "labelsTr" / f"{case.name}.nii.gz", case.label)
        files = {"image": f"./imagesTr/{case.name}.nii.gz", "label": f"./labelsTr/{case.name}.nii.gz"}
        entries.append(files)
    nifti(root / "imagesTs" / "P99.nii.gz", np.zeros((*SHAPE, 4), np.uint8))
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    content = {"modality": modality, "training": entries, "test": ["./imagesTs/P99.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(content))


def bids(session: str = "") -> Callable[[Path, list[Case]], None]:
    """BIDS, with the masks and a brain mask in derivatives."""

    def write(root: Path, cases: list[Case]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / "dataset_description.json").write_text(json.dumps({"Name": "phantom", "BIDSVersion": "1.9.0"}))
        with open(root / "participants.tsv", "w", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t")
            table.writerow(["participant_id", "site"])
            table.writerows([[f"sub-{case.name}", "A"] for case in cases])
        for case in cases:
            stem = f"sub-{case.name}" + (f"_{session}" if session else "")
            folder = Path(f"sub-{case.name}", session, "anat") if session else Path(f"sub-{case.name}", "anat")
            nifti(root / folder / f"{stem}_T1w.nii.gz", 255 - case.image)
            nifti(root / folder / f"{stem}_FLAIR.nii.gz", case.image)
            masks = root / "derivatives" / "manual" / folder
            nifti(masks / f"{stem}_space-orig_label-lesion_mask.nii.gz", case.label)
            nifti(masks / f"{stem}_desc-brain_mask.nii.gz", (case.image > 40).astype(np.uint8))

    return write


def dicom(root: Path, cases: list[Case]) -> None:
    """A study a case, with T1, FLAIR and a SEG that names the FLAIR series."""
    from mri_seg.dicom.seg import write_segmentation

    for case in cases:
        about = {"patient_id": case.name, "study_uid": f"1.2.3.{PATIENTS.index(case.name) + 1}"}
        image = case.image.astype(np.uint16)
        write_series(root / case.name / "t1", 255 - image, AFFINE, description="AX T1", EchoTime=10, **about)
        files = write_series(root / case.name / "flair", image, AFFINE, series_number=4, shuffled=True, **about)
        mask = case.label > 0
        write_segmentation(root / case.name / "seg.dcm", mask, files, algorithm_version="1")


def listed(root: Path, cases: list[Case]) -> None:
    """Files whose names say nothing, and a list of them."""
    entries: dict[str, list[dict]] = {section: [] for section in SECTIONS}
    for number, case in enumerate(cases):
        nifti(root / "a" / f"{number}.nii.gz", case.image)
        nifti(root / "b" / f"{number}.nii.gz", case.label)
        section = next(section for section, names in SECTIONS.items() if case.name in names)
        entry = {"image": f"a/{number}.nii.gz", "label": f"b/{number}.nii.gz", "case": case.name}
        entries[section].append(entry)
    (root / "list.json").write_text(json.dumps(entries))


FORMS: dict[str, Callable[[Path, list[Case]], None]] = {
    "TCGA-LGG": lgg,
    "pairs with _mask": beside("_mask"),
    "pairs with _label": beside("_label"),
    "pairs with _seg": beside("_seg"),
    "images and masks of NRRD": folders("masks", itk_image, ".nrrd"),
    "images and labels of MHA": folders("labels", itk_image, ".mha"),
    "images and masks of PNG slices": slices,
    "BraTS": brats,
    "nnU-Net": nnunet,
    "MSD": decathlon,
    "BIDS": bids(),
    "BIDS with sessions": bids("ses-01"),
    "DICOM SEG": dicom,
    "list of cases": listed,
}
"""Writers by the form in words."""


def options_of(form: str, root: Path) -> dict[str, object]:
    """Options of a command for the data set, with the split of ``SECTIONS``."""
    if form == "list of cases":
        return {"dataset_dir": root, "datalist": root / "list.json"}
    prefix = "sub-" if form.startswith("BIDS") else ""
    split = {section: [f"{prefix}{name}" for name in names] for section, names in SECTIONS.items()}
    file = root.parent / "split.json"
    file.write_text(json.dumps(split))
    return {"dataset_dir": root, "split": file}

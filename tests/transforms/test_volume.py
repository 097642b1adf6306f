"""Normalisation by the volume's own foreground, resampling in plane and back, neighbouring slices."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Invertd, Orientationd

from mri_seg.transforms.volume import (
    NeighboringSlicesd,
    NormalizeForeground,
    NormalizeForegroundd,
    PlaneSpacingd,
    RequireAxiald,
    RequireImaged,
    neighbor_offsets,
)
from mri_seg.utils.case_flags import case_flags


def head(size: int = 24, depth: int = 6) -> torch.Tensor:
    """Dark air around a box of tissue of mean 100 and standard deviation 15."""
    volume = torch.rand(1, size, size, depth) * 4
    inner = slice(size // 6, -size // 6)
    volume[:, inner, inner] = 100 + 15 * torch.randn_like(volume[:, inner, inner])
    return volume


def volume_of(shape: tuple[int, ...], spacing: tuple[float, float, float], *, known: bool | None = None) -> MetaTensor:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    meta = {} if known is None else {"spacing_known": known}
    return MetaTensor(torch.rand(shape), affine=affine, meta=meta)


class TestNormalizeForeground:
    def test_foreground_has_median_0_and_spread_1(self) -> None:
        volume = head()
        tissue = NormalizeForeground()(volume)[volume > 30]
        assert tissue.median().abs() < 0.01
        assert abs(tissue.std() - 1) < 0.1

    def test_air_does_not_count(self) -> None:
        volume = head()
        padded = torch.nn.functional.pad(volume, (0, 0, 12, 12, 12, 12))
        normalised = NormalizeForeground()(padded)[:, 12:-12, 12:-12]
        torch.testing.assert_close(normalised, NormalizeForeground()(volume), atol=0.02, rtol=0)

    @pytest.mark.parametrize(("scale", "offset"), [(37, 11), (0.1, 0), (1, -500), (1e-3, 5)])
    def test_normalize_does_not_depend_on_scale_and_offset(self, scale: float, offset: float) -> None:
        volume = head()
        found, expected = NormalizeForeground()(scale * volume + offset), NormalizeForeground()(volume)
        torch.testing.assert_close(found, expected, atol=1e-3 if scale >= 0.1 else 0.05, rtol=0)

    def test_normalize_cuts_what_lies_beyond_the_limits(self) -> None:
        volume = head()
        volume[0, 12, 12, 3] = 1e6
        normalised = NormalizeForeground()(volume)
        assert normalised.max() == 10
        assert normalised.min() == -5
        narrow = NormalizeForeground(limits=(-1, 1))(volume)
        assert (narrow.min(), narrow.max()) == (-1, 1)

    def test_a_few_hot_pixels_change_little(self) -> None:
        volume = head()
        hot = volume.clone()
        hot[0, 5, 5:8, 2] = 1e5
        same = volume == hot
        found, expected = NormalizeForeground()(hot)[same], NormalizeForeground()(volume)[same]
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)

    @pytest.mark.parametrize("value", [0.0, 7.5, -3.0])
    def test_a_constant_volume_becomes_0_with_a_warning(self, value: float, caplog: pytest.LogCaptureFixture) -> None:
        volume = MetaTensor(torch.full((1, 8, 8, 2), value), meta={"filename_or_obj": "empty.nii.gz"})
        with caplog.at_level(logging.WARNING):
            normalised = NormalizeForeground()(volume)
        assert (normalised == 0).all()
        assert "empty.nii.gz: the intensities of the foreground do not vary" in caplog.text

    def test_normalize_warns_of_nothing_else(self, caplog: pytest.LogCaptureFixture) -> None:
        NormalizeForeground()(head())
        assert caplog.text == ""

    def test_normalize_keeps_geometry_and_metadata(self) -> None:
        volume = volume_of((1, 8, 8, 2), (0.5, 0.5, 3))
        volume.meta["case"] = "a"
        normalised = NormalizeForeground()(volume)
        assert isinstance(normalised, MetaTensor)
        assert torch.equal(normalised.affine, volume.affine)
        assert normalised.meta["case"] == "a"

    def test_normalize_leaves_its_input_alone(self) -> None:
        volume = head()
        before = volume.clone()
        NormalizeForeground()(volume)
        assert torch.equal(volume, before)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
    def test_normalize_takes_integers(self, dtype: torch.dtype) -> None:
        volume = head().clamp(0, 255).to(dtype)
        torch.testing.assert_close(NormalizeForeground()(volume), NormalizeForeground()(volume.float()))

    def test_normalize_takes_numpy(self) -> None:
        volume = head()
        normalised = NormalizeForeground()(volume.numpy())
        np.testing.assert_allclose(normalised, NormalizeForeground()(volume).numpy(), atol=1e-4)

    def test_values_outside_the_image_that_are_not_numbers_stay_out_of_it(self) -> None:
        volume = head()
        expected = NormalizeForeground()(volume)
        volume[0, 0, 0] = torch.nan  # as tools that strip the skull leave outside the brain
        normalised = NormalizeForeground()(volume)
        assert normalised.isfinite().all()
        torch.testing.assert_close(normalised[0, 1:, 1:], expected[0, 1:, 1:], atol=0.05, rtol=0)


class TestNormalizeForegroundd:
    def test_normalize_normalises_its_keys_alone(self) -> None:
        case = {"image": head(), "label": head()}
        normalised = NormalizeForegroundd("image", limits=(-2, 2))(case)
        assert torch.equal(normalised["image"], NormalizeForeground(limits=(-2, 2))(case["image"]))
        assert normalised["label"] is case["label"]

    def test_normalize_passes_over_missing_keys_where_allowed(self) -> None:
        assert NormalizeForegroundd("image", allow_missing_keys=True)({"a": 1}) == {"a": 1}
        with pytest.raises(KeyError, match="image"):
            NormalizeForegroundd("image")({"a": 1})


class TestPlaneSpacingd:
    def test_plane_spacing_resamples_in_plane_alone(self) -> None:
        image = volume_of((1, 21, 11, 7), (0.5, 1.0, 5.0))
        resampled = PlaneSpacingd("image", (1.0, 0.5), mode="bilinear")({"image": image})["image"]
        assert resampled.shape == (1, 11, 21, 7)
        np.testing.assert_allclose(resampled.pixdim, (1.0, 0.5, 5.0), atol=1e-6)

    def test_slices_do_not_mix(self) -> None:
        image = volume_of((1, 20, 20, 3), (0.5, 0.5, 2.3))
        image[..., 1] = 0
        resampled = PlaneSpacingd("image", (0.9, 0.9), mode="bilinear")({"image": image})["image"]
        assert resampled[..., 1].abs().max() < 1e-6
        assert resampled[..., 0].min() > 0
        assert resampled.shape[-1] == 3

    def test_plane_spacing_takes_a_single_slice(self) -> None:
        image = volume_of((1, 20, 20, 1), (0.45, 0.45, 4))
        assert PlaneSpacingd("image", (0.9, 0.9))({"image": image})["image"].shape == (1, 10, 10, 1)

    def test_a_smooth_image_keeps_its_values(self) -> None:
        ramp = torch.arange(20.0)[None, :, None, None].expand(1, 20, 12, 3)
        image = MetaTensor(ramp.clone(), affine=torch.diag(torch.tensor([0.5, 0.5, 3, 1.0])))
        resampled = PlaneSpacingd("image", (1.0, 1.0), mode="bilinear")({"image": image})["image"]
        steps = resampled[0, 1:-1, 0, 0].diff()
        torch.testing.assert_close(steps.as_tensor(), torch.full_like(steps.as_tensor(), 2.0), atol=0.25, rtol=0)

    def test_volumes_of_unknown_spacing_stay(self) -> None:
        image = volume_of((1, 20, 20, 3), (1, 1, 1), known=False)
        case = {"image": image}
        transform = PlaneSpacingd("image", (0.5, 0.5))
        assert torch.equal(transform(case)["image"], image)
        assert torch.equal(transform.inverse(transform(case))["image"], image)
        assert transform(case)["image"].applied_operations == []

    def test_plane_spacing_keeps_labels_binary(self) -> None:
        case = {"image": volume_of((1, 20, 20, 3), (0.5, 0.5, 1)), "label": volume_of((1, 20, 20, 3), (0.5, 0.5, 1))}
        case["label"] = (case["label"] > 0.5).float()
        transform = PlaneSpacingd(["image", "label"], (0.8, 0.8), mode=["bilinear", "nearest"])
        assert set(transform(case)["label"].unique().tolist()) <= {0.0, 1.0}

    @pytest.mark.parametrize("known", [None, True])
    def test_inverse_returns_to_the_original_grid(self, known: bool | None) -> None:
        image = volume_of((1, 21, 17, 4), (0.7, 0.6, 5.0), known=known)
        transform = PlaneSpacingd("image", (0.9, 0.9), mode="bilinear")
        back = transform.inverse(transform({"image": image}))["image"]
        assert back.shape == image.shape
        torch.testing.assert_close(back.affine, image.affine)

    @pytest.mark.parametrize(("known", "inner"), [(True, (1, 10, 10, 4)), (False, (1, 20, 20, 4))])
    def test_prediction_returns_to_the_original_grid_through_a_loader(
        self, known: bool, inner: tuple[int, ...]
    ) -> None:
        image = volume_of((1, 20, 20, 4), (0.45, 0.45, 5.0), known=known)
        preprocessing = Compose(
            [Orientationd("image", axcodes="PLS", labels=None), PlaneSpacingd("image", (0.9, 0.9), mode="bilinear")]
        )
        (batch,) = DataLoader(Dataset([{"image": image}], preprocessing), batch_size=1)
        assert batch["image"].shape[1:] == inner
        batch["pred"] = torch.ones_like(batch["image"])
        invert = Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False)
        pred = invert(decollate_batch(batch)[0])["pred"]
        assert pred.shape == image.shape
        torch.testing.assert_close(pred.affine, image.affine)
        assert (pred > 0.5).all()

    def test_missing_keys_are_passed_over_where_allowed(self) -> None:
        case = {"image": volume_of((1, 20, 20, 3), (0.5, 0.5, 1))}
        transform = PlaneSpacingd(["image", "label"], (1, 1), allow_missing_keys=True)
        resampled = transform(case)
        assert resampled["image"].shape == (1, 10, 10, 3)
        assert transform.inverse(resampled)["image"].shape == (1, 20, 20, 3)


class TestNeighbouringSlicesd:
    @pytest.fixture
    def volume(self) -> torch.Tensor:
        return torch.arange(5.0).expand(1, 2, 3, 5).clone()

    def test_channels_are_below_itself_and_above_and_edges_repeat(self, volume: torch.Tensor) -> None:
        stacked = NeighboringSlicesd("image", 3)({"image": volume})["image"]
        assert stacked.shape == (3, 2, 3, 5)
        assert stacked[:, 0, 0].tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 4]]

    def test_stacking_five_neighbours(self, volume: torch.Tensor) -> None:
        stacked = NeighboringSlicesd("image", 5)({"image": volume})["image"]
        assert stacked[0, 0, 0].tolist() == [0, 0, 0, 1, 2]
        assert torch.equal(stacked[2], volume[0])

    def test_stacking_one_neighbour_changes_nothing(self, volume: torch.Tensor) -> None:
        assert torch.equal(NeighboringSlicesd("image", 1)({"image": volume})["image"], volume)

    def test_a_single_slice_is_its_own_neighbour(self) -> None:
        volume = torch.rand(1, 4, 4, 1)
        stacked = NeighboringSlicesd("image", 3)({"image": volume})["image"]
        assert torch.equal(stacked, volume.expand(3, 4, 4, 1))

    def test_stacking_neighbours_keeps_geometry_and_what_was_applied(self) -> None:
        image = volume_of((1, 20, 20, 4), (0.5, 0.5, 5.0))
        resampled = PlaneSpacingd("image", (1, 1))({"image": image})["image"]
        stacked = NeighboringSlicesd("image", 3)({"image": resampled})["image"]
        assert torch.equal(stacked.affine, resampled.affine)
        assert len(stacked.applied_operations) == len(resampled.applied_operations) == 1

    @pytest.mark.parametrize("number", [0, 2, 4, -1])
    def test_stacking_neighbours_refuses_a_number_without_a_middle(self, number: int) -> None:
        with pytest.raises(ValueError, match=rf"must be odd, .* got {number}\."):
            NeighboringSlicesd("image", number)
        with pytest.raises(ValueError, match="must be odd"):
            neighbor_offsets(number)

    def test_stacking_neighbours_passes_over_missing_keys_where_allowed(self, volume: torch.Tensor) -> None:
        assert NeighboringSlicesd("image", allow_missing_keys=True)({"a": 1}) == {"a": 1}
        with pytest.raises(KeyError, match="image"):
            NeighboringSlicesd("image")({"a": 1})


class TestRequireAxiald:
    """Volumes come brought to axial orientation: rows, columns, slices upwards."""

    @pytest.mark.parametrize(
        "spacing", [(0.9, 0.9, 5), (1, 1, 1), (0.5, 0.5, 0.6), (1, 1.9, 1), (1.5, 1, 3), (2, 1, 2), (0.9, 0.9, 0.9)]
    )
    def test_require_axial_lets_axial_slices_and_nearly_cubic_voxels_through(
        self, spacing: tuple[float, float, float]
    ) -> None:
        case = {"image": volume_of((1, 4, 4, 4), spacing)}
        assert RequireAxiald("image")(case) == case

    @pytest.mark.parametrize(
        ("spacing", "plane"), [((5, 0.9, 0.9), "coronal"), ((0.9, 5, 0.9), "sagittal"), ((1, 2.5, 1), "sagittal")]
    )
    def test_require_axial_refuses_thick_slices_of_another_plane(
        self, spacing: tuple[float, float, float], plane: str
    ) -> None:
        case = {"image": volume_of((1, 4, 4, 4), spacing)}
        with pytest.raises(ValueError, match=f"acquired in {plane} slices .* set allow_non_axial to true"):
            RequireAxiald("image")(case)
        assert RequireAxiald("image", allow="true")(case) == case

    def test_require_axial_lets_volumes_of_unknown_spacing_through(self) -> None:
        case = {"image": volume_of((1, 4, 4, 4), (5, 1, 1), known=False)}
        assert RequireAxiald("image")(case) == case


class TestRequireImaged:
    @staticmethod
    def check(values: np.ndarray, **meta: object) -> list[str]:
        """Names of the flags."""
        volume = MetaTensor(torch.as_tensor(values)[None], meta={"files": "head.nii\nother", "case": "head", **meta})
        checked = RequireImaged("image")({"image": volume})["image"]
        assert checked is volume
        return [flag["name"] for flag in case_flags(checked.meta)]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([0, 1], "its only values are 0 and 1,"),
            ([7.5], "its only value is 7.5,"),
            ([0, 255, np.nan, np.inf], "its only values are 0 and 255,"),
            ([np.nan], "its only values are none that is a number,"),
        ],
    )
    def test_require_image_refuses_one_or_two_values_and_names_the_file(
        self, values: list[float], message: str
    ) -> None:
        volume = np.resize(np.array(values, np.float32), (40, 30, 20))
        with pytest.raises(ValueError, match=rf"^head\.nii: {message} expected an image\. It is empty or a mask"):
            self.check(volume)

    def test_require_image_finds_a_single_voxel_of_a_third_value(self) -> None:
        volume = np.resize(np.array([0, 1], np.float32), (64, 63, 50))
        volume[17, 5, 3] = 4
        assert self.check(volume) == ["few_values"]

    def test_flags_a_mask_of_several_labels(self) -> None:
        assert self.check(np.resize(np.array([0, 1, 2, 4], np.float32), (20, 20, 9))) == ["few_values"]

    def test_require_image_lets_an_image_through(self) -> None:
        assert self.check(np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2)) == []
        dark = np.zeros((64, 64, 40), np.float32)  # nearly all of it air
        dark[30:34, 30:34, 20:22] = np.arange(32).reshape(4, 4, 2)
        assert self.check(dark) == []

    def test_flags_an_orientation_that_is_not_known(self) -> None:
        volume = np.arange(4 * 3 * 8, dtype=np.float32).reshape(4, 3, 8)
        assert self.check(volume, orientation_known=False) == ["orientation_unknown"]


class TestNormalizeByBrain:
    @staticmethod
    def head(scalp: float) -> torch.Tensor:
        places = [torch.linspace(-1, 1, n) for n in (160, 160, 6)]
        radius = torch.hypot(places[0][:, None], places[1])[..., None].expand(160, 160, 6)
        volume = torch.full(radius.shape, scalp)
        volume[radius < 0.85] = 5.0  # the skull
        volume[radius < 0.72] = 100.0
        volume[radius > 0.95] = 0.0
        return (volume + 8 * torch.randn(volume.shape, generator=torch.Generator().manual_seed(0)))[None]

    def test_values_of_the_brain_do_not_depend_on_the_scalp(self) -> None:
        normalize = NormalizeForeground(region="brain")
        bright, dark = (normalize(self.head(scalp))[0, 60:100, 60:100] for scalp in (300.0, 20.0))
        assert torch.allclose(bright, dark, atol=0.05)
        assert bright.median().abs() < 0.2

    def test_they_do_when_the_head_is_the_measure(self) -> None:
        normalize = NormalizeForeground()
        bright, dark = (normalize(self.head(scalp))[0, 60:100, 60:100] for scalp in (300.0, 20.0))
        assert (bright - dark).abs().mean() > 0.2

    def test_volume_without_a_brain_is_normalized_by_its_foreground(self) -> None:
        volume = torch.rand(1, 16, 16, 2)
        assert torch.allclose(NormalizeForeground(region="brain")(volume), NormalizeForeground()(volume))

    def test_unknown_region_is_refused(self) -> None:
        with pytest.raises(ValueError, match="expected head or brain"):
            NormalizeForeground(region="skull")


class TestMirroredChannel:
    def test_other_side_follows_the_neighbors(self) -> None:
        places = torch.linspace(-1, 1, 32)
        head = (torch.hypot(places[:, None] / 0.9, places / 0.7) < 1).float()  # the same on both sides
        volume = 50 * head[None, ..., None].repeat(1, 1, 1, 5)
        volume[0, 10:14, 8:12] += 20
        stacked = NeighboringSlicesd("image", 3, mirror=True)({"image": volume})["image"]
        assert stacked.shape == (4, 32, 32, 5)
        assert torch.equal(stacked[:3], NeighboringSlicesd("image", 3)({"image": volume})["image"])
        assert torch.allclose(stacked[3, 11:13, 21:23], torch.tensor(70.0), atol=1)
        assert torch.allclose(stacked[3, 11:13, 9:11], torch.tensor(50.0), atol=1)

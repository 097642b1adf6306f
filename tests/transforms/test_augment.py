"""Augmentation of batches: what stays true of image and label, and what it takes to change them."""

from __future__ import annotations

import pytest
import torch

from mri_seg.transforms.augment import AugmentBatch, RandomAugment

OFF = {"flip": 0.0, "rotation": 0.0, "scale": (1.0, 1.0), "elastic": (0.0, 48.0), "probability": 0.0}
SAME_INTENSITIES = {
    "low_resolution": (1.0, 1.0),
    "gamma": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "shift": 0.0,
    "bias": 0.0,
    "noise": 0.0,
}
GEOMETRY_ALONE = {**SAME_INTENSITIES, "probability": 1.0}


def squares(batch: int = 8, size: int = 64) -> torch.Tensor:
    """A bright square off the centre of each slice, its own label."""
    label = torch.zeros(batch, 1, size, size)
    label[:, :, 20:40, 24:50] = 1
    return label


def dice(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    a, b = (v.flatten(1) > 0.5 for v in (image, label))
    return 2 * (a & b).sum(1) / (a.sum(1) + b.sum(1))


def angles(slices: torch.Tensor) -> torch.Tensor:
    """Direction in degrees, clockwise from the right, in which the mass of each slice ``(B, H, W)`` lies."""
    height, width = slices.shape[1:]
    rows, columns = torch.arange(height)[:, None] - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    return torch.atan2((slices * rows).sum((1, 2)), (slices * columns).sum((1, 2))).rad2deg()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 3, 48, 40), (torch.rand(6, 1, 48, 40) > 0.8).float()


class TestResult:
    @pytest.mark.parametrize("size", [(48, 40), (32, 24), (17, 33), (64, 64), (32, 64)])
    def test_augmented_batch_has_the_size_asked_for(
        self, batch: tuple[torch.Tensor, torch.Tensor], size: tuple[int, int]
    ) -> None:
        image, label = RandomAugment(size, probability=1.0)(*batch)
        assert image.shape == (6, 3, *size)
        assert label.shape == (6, 1, *size)

    def test_augmented_batch_is_finite_with_a_binary_label(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        augment = RandomAugment((32, 32), probability=1.0)
        for _ in range(20):
            image, label = augment(*batch)
            assert image.isfinite().all()
            assert set(label.unique().tolist()) == {0.0, 1.0}
            assert image.dtype == label.dtype == torch.float32

    @pytest.mark.parametrize("value", [0.0, -3.0])
    def test_augmented_batch_is_finite_for_a_constant_slice(self, value: float) -> None:
        image, _ = RandomAugment((16, 16), probability=1.0)(
            torch.full((2, 1, 24, 24), value), torch.zeros(2, 1, 24, 24)
        )
        assert image.isfinite().all()

    def test_augmented_batch_repeats_with_the_seed(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        augment = RandomAugment((32, 32))
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(augment(*batch))
        assert all(torch.equal(a, b) for a, b in zip(results[0], results[1]))
        assert not torch.equal(results[0][0], results[2][0])

    def test_augmented_batch_differs_from_slice_to_slice(self) -> None:
        image = torch.randn(1, 1, 32, 32).expand(4, 1, 32, 32).clone()
        augmented, _ = RandomAugment((32, 32), probability=1.0)(image, torch.zeros(4, 1, 32, 32))
        assert len({tuple(one.flatten().tolist()) for one in augmented}) == 4

    def test_augmented_batch_leaves_its_input_alone(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        before = [v.clone() for v in batch]
        RandomAugment((48, 40), probability=1.0)(*batch)
        assert all(torch.equal(a, b) for a, b in zip(before, batch))

    def test_augmented_batch_takes_a_batch_of_one_slice(self) -> None:
        image, label = RandomAugment([16, 16], probability=1.0)(torch.randn(1, 1, 20, 20), torch.zeros(1, 1, 20, 20))
        assert image.shape == label.shape == (1, 1, 16, 16)


class TestWithEverythingOff:
    def test_augment_with_everything_off_changes_nothing(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        image, label = RandomAugment((48, 40), **OFF)(*batch)
        torch.testing.assert_close(image, batch[0], atol=1e-3, rtol=0)
        assert torch.equal(label, batch[1])

    def test_a_crop_is_a_part_of_the_slice(self) -> None:
        rows = torch.arange(40.0)[:, None].expand(40, 40)
        image = torch.stack([rows, rows.T])[None]  # each pixel names its place
        augmented, _ = RandomAugment((16, 24), **OFF)(image, torch.zeros(1, 1, 40, 40))
        torch.testing.assert_close(augmented[0, 0].diff(dim=0), torch.ones(15, 24), atol=1e-3, rtol=0)
        torch.testing.assert_close(augmented[0, 1].diff(dim=1), torch.ones(16, 23), atol=1e-3, rtol=0)

    def test_crops_reach_every_part_of_the_slice(self) -> None:
        rows = torch.arange(40.0)[:, None].expand(200, 1, 40, 40).clone()
        first = RandomAugment((16, 16), **OFF)(rows, torch.zeros(200, 1, 40, 40))[0][:, 0, 0, 0]
        assert first.min() >= -0.51
        assert first.min() < 2
        assert first.max() <= 24.51
        assert first.max() > 22

    def test_a_smaller_slice_lies_in_the_middle_and_its_edge_goes_on(self) -> None:
        image = torch.randn(2, 1, 16, 16)
        augmented, label = RandomAugment((32, 24), **OFF)(image, torch.zeros(2, 1, 16, 16))
        torch.testing.assert_close(augmented[:, :, 8:24, 4:20], image, atol=1e-3, rtol=0)
        torch.testing.assert_close(augmented[:, :, 0, 4:20], image[:, :, 0], atol=1e-3, rtol=0)
        assert not label.any()


class TestGeometry:
    @pytest.mark.parametrize(
        "options",
        [
            {"rotation": 20.0},
            {"scale": (0.8, 1.25)},
            {"elastic": (4.0, 48.0)},
            {"flip": 1.0},
            {"rotation": 20.0, "scale": (0.8, 1.25), "elastic": (4.0, 48.0), "flip": 0.5},
        ],
        ids=lambda options: "+".join(options),
    )
    def test_label_follows_the_image(self, options: dict) -> None:
        label = squares()
        image, moved = RandomAugment((64, 64), **{**OFF, **GEOMETRY_ALONE, **options})(label.clone(), label)
        assert (dice(image, moved) > 0.99).all()
        assert not torch.equal(moved, label)

    def test_label_follows_into_a_crop(self) -> None:
        label = squares()
        image, moved = RandomAugment((48, 48), **GEOMETRY_ALONE)(label.clone(), label)
        assert (dice(image, moved) > 0.99).all()

    def test_augment_flips_left_and_right(self) -> None:
        label = squares()
        _, moved = RandomAugment((64, 64), **{**OFF, "flip": 1.0})(label, label)
        assert torch.equal(moved, label.flip(-1))

    def test_augment_flips_as_often_as_asked(self) -> None:
        label = squares(batch=400, size=16 * 4)
        _, moved = RandomAugment((64, 64), **{**OFF, "flip": 0.25})(label, label)
        assert (moved != label).flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.08)

    @pytest.mark.parametrize(("scale", "area"), [((0.5, 0.5), 0.25), ((2.0, 2.0), 4.0)])
    def test_augment_scales_by_the_factor_asked_for(self, scale: tuple[float, float], area: float) -> None:
        label = torch.zeros(4, 1, 64, 64)
        label[:, :, 24:40, 24:40] = 1
        _, moved = RandomAugment((64, 64), **{**OFF, "scale": scale, "probability": 1.0, **SAME_INTENSITIES})(
            label, label
        )
        torch.testing.assert_close(moved.sum((1, 2, 3)), torch.full((4,), 256 * area), rtol=0.15, atol=0)

    def test_augment_rotates_no_further_than_asked(self) -> None:
        label = torch.zeros(200, 1, 65, 65)
        label[:, :, 32, 34:] = 1  # a spoke to the right of the centre
        _, moved = RandomAugment((65, 65), **{**OFF, **GEOMETRY_ALONE, "rotation": 20.0})(label, label)
        turned = angles(moved[:, 0])
        assert turned.abs().max() < 22
        assert turned.max() > 15
        assert turned.min() < -15

    def test_augment_rotates_rows_and_columns_alike(self) -> None:
        across, down = torch.zeros(2, 50, 1, 65, 65)
        across[:, :, 31:34, 34:] = 1
        down[:, :, 34:, 31:34] = 1
        image = torch.cat([across, down], dim=1)
        moved, _ = RandomAugment((65, 65), **{**OFF, **GEOMETRY_ALONE, "rotation": 20.0})(image, across)
        torch.testing.assert_close(angles(moved[:, 1]) - angles(moved[:, 0]), torch.full((50,), 90.0), atol=1, rtol=0)


class TestIntensity:
    @pytest.mark.parametrize(
        "options",
        [
            {"low_resolution": (2.0, 2.5)},
            {"gamma": (1.5, 1.7)},
            {"contrast": (1.4, 1.5)},
            {"shift": 0.4},
            {"bias": 0.4},
            {"noise": 0.25},
        ],
        ids=lambda options: "+".join(options),
    )
    def test_augment_changes_the_image_and_not_the_label(
        self, batch: tuple[torch.Tensor, torch.Tensor], options: dict
    ) -> None:
        image, label = RandomAugment((48, 40), **{**OFF, **GEOMETRY_ALONE, **options})(*batch)
        assert (image - batch[0]).abs().flatten(1).mean(1).min() > 1e-3
        assert torch.equal(label, batch[1])

    def test_augment_changes_neighbouring_slices_alike(self) -> None:
        image = torch.randn(4, 1, 32, 32).expand(4, 3, 32, 32).clone()
        augmented, _ = RandomAugment((32, 32), noise=0.0, probability=1.0)(image, torch.zeros(4, 1, 32, 32))
        torch.testing.assert_close(augmented[:, 0], augmented[:, 2], atol=1e-4, rtol=0)

    def test_augment_changes_the_share_of_slices_asked_for(self) -> None:
        image = torch.randn(400, 1, 16, 16)
        options = {**OFF, **GEOMETRY_ALONE, "noise": 0.25, "probability": 0.25}
        augmented, _ = RandomAugment((16, 16), **options)(image, torch.zeros_like(image))
        changed = (augmented - image).abs().flatten(1).mean(1) > 1e-3
        assert changed.float().mean() == pytest.approx(0.25, abs=0.08)

    def test_noise_is_no_stronger_than_asked(self) -> None:
        image = torch.zeros(64, 1, 32, 32)
        augmented, _ = RandomAugment((32, 32), **{**OFF, **GEOMETRY_ALONE, "noise": 0.25})(image, image)
        assert augmented.flatten(1).std(1).max() < 0.27


class TestAugmentBatch:
    @pytest.fixture
    def compact(self) -> dict[str, torch.Tensor]:
        return {"image": torch.randn(2, 3, 16, 16).half(), "label": torch.ones(2, 1, 16, 16, dtype=torch.uint8)}

    def test_augment_batch_passes_a_batch_through_without_augmentation(self, compact: dict[str, torch.Tensor]) -> None:
        image, label = AugmentBatch()(compact, "cpu")
        assert image.dtype == label.dtype == torch.float32
        assert torch.equal(image, compact["image"].float())
        assert torch.equal(label, compact["label"].float())

    def test_augment_batch_augments(self, compact: dict[str, torch.Tensor]) -> None:
        image, label = AugmentBatch(RandomAugment((8, 12)))(compact, "cpu", non_blocking=True)
        assert (image.shape, label.shape) == ((2, 3, 8, 12), (2, 1, 8, 12))
        assert image.dtype == label.dtype == torch.float32

    def test_augment_batch_gives_the_image_the_memory_format_asked_for(self, compact: dict[str, torch.Tensor]) -> None:
        image, _ = AugmentBatch(RandomAugment((8, 8)))(compact, "cpu", memory_format=torch.channels_last)
        assert image.is_contiguous(memory_format=torch.channels_last)

    def test_augment_batch_leaves_the_batch_alone(self, compact: dict[str, torch.Tensor]) -> None:
        before = {key: value.clone() for key, value in compact.items()}
        AugmentBatch(RandomAugment((16, 16), probability=1.0))(compact, "cpu")
        assert all(torch.equal(compact[key], before[key]) for key in before)


def head_slices(number: int = 4, size: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slices with air at -2, scalp at 3, brain at 0 and a lesion at 2; its label; and the brain."""
    places = torch.linspace(-1, 1, size)
    radius = torch.hypot(places[:, None], places)
    slices = torch.full((size, size), -2.0)
    slices[radius < 0.95] = 3.0
    brain, lesion = radius < 0.75, torch.hypot(places[:, None] - 0.2, places - 0.2) < 0.25
    slices[brain], slices[lesion] = 0.0, 2.0
    slices = slices.expand(number, 3, size, size).clone()
    return slices, *(mask.float().expand(number, 1, size, size).clone() for mask in (lesion, brain))


def only(size: int = 64, **options: object) -> RandomAugment:
    """An augmentation that does nothing but what the options say."""
    return RandomAugment((size, size), probability=0, flip=0, **options)


class TestScalp:
    def test_stripping_takes_away_what_lies_outside_the_brain(self) -> None:
        image, label, brain = head_slices()
        changed, _ = only(strip_probability=1)(image, label, brain)
        outside = torch.nn.functional.max_pool2d(brain, 7, 1, 3).expand_as(image) == 0
        assert torch.allclose(changed[outside], torch.tensor(-2.0), atol=1e-5)

    def test_brain_and_label_stay_as_they_are(self) -> None:
        image, label, brain = head_slices()
        changed, kept = only(scalp_probability=0.5, strip_probability=0.5)(image, label, brain)
        inside = brain.expand_as(image) > 0
        assert torch.allclose(changed[inside], image[inside], atol=1e-5)
        assert torch.equal(kept, label)

    def test_scalp_gets_a_brightness_within_the_range(self) -> None:
        image, label, brain = head_slices(32)
        changed, _ = only(scalp_probability=1, scalp=(0.5, 1.5))(image, label, brain)
        scalp = changed[:, 1, 32, 2]  # near the left edge
        assert (scalp >= -2 + 0.5 * 5 - 1e-4).all()
        assert (scalp <= -2 + 1.5 * 5 + 1e-4).all()
        assert scalp.std() > 0.1

    def test_scalps_stay_without_a_mask_of_the_brain(self) -> None:
        image, label, _ = head_slices()
        changed, _ = only(scalp_probability=1)(image, label)
        assert torch.allclose(changed, image, atol=1e-5)


class TestFading:
    def test_lesion_becomes_as_dark_as_the_tissue_around_it(self) -> None:
        torch.manual_seed(0)
        image, label, _ = head_slices(16)
        changed, kept = only(fade_probability=1, fade=(1.0, 1.0))(image, label)
        lesion = label.expand_as(image) > 0
        assert changed[lesion].mean() < 1.7
        assert changed[lesion].min() < 0.6
        assert torch.allclose(changed[~lesion], image[~lesion], atol=1e-5)
        assert torch.equal(kept, label)

    def test_other_side_of_the_head_is_not_faded(self) -> None:
        image, label, _ = head_slices(8)
        changed, _ = only(fade_probability=1, mirror=True)(image, label)
        assert torch.allclose(changed[:, -1], image[:, -1], atol=1e-5)

    def test_slices_without_tumor_stay(self) -> None:
        image, label, _ = head_slices()
        changed, _ = only(fade_probability=1)(image, torch.zeros_like(label))
        assert torch.allclose(changed, image, atol=1e-5)

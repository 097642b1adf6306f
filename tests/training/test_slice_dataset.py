"""Training slices: which there are, what stands beside each, and how often each is drawn."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor

from mri_seg.training.slice_dataset import EpochSampler, SliceDataset


def case(first: int, depth: int, tumour: tuple[int, ...] = (), size: tuple[int, int] = (4, 6)) -> dict:
    """A volume whose slices hold the numbers from ``first`` on, tumour in those named."""
    image = (first + torch.arange(depth)).float().expand(1, *size, depth).clone()
    label = torch.zeros(1, *size, depth)
    label[..., list(tumour)] = 1
    label[:, 0] = 0
    return {"image": image, "label": label}


def dataset(*cases: dict, **options: object) -> SliceDataset:
    return SliceDataset(cases, dict, progress=False, **options)


@pytest.fixture
def two_cases() -> tuple[dict, dict]:
    return case(10, 3, tumour=(1,)), case(20, 2, tumour=(0,))


class TestCasesWithoutTumour:
    def test_cases_without_tumour_are_counted_and_named_in_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("INFO"):
            dataset({**case(0, 2), "case": "P1"}, case(0, 2, tumour=(1,)), case(0, 2))
        (record,) = caplog.records
        assert record.getMessage() == "2 of 3 training cases have no tumour in their label: P1, case 3."
        assert record.levelname == "INFO"

    def test_cases_that_all_have_tumour_need_no_word(
        self, two_cases: tuple[dict, dict], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO"):
            dataset(*two_cases)
        assert not caplog.messages

    def test_cases_without_tumour_are_named_in_a_line_of_limited_length_and_warned_of_if_all_are(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        dataset(*[{**case(0, 1), "case": f"P{n}"} for n in range(200)])
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage().startswith("200 of 200 training cases")
        assert record.getMessage().endswith("P9 and 190 more.")


class TestItems:
    def test_training_slices_are_all_slices_of_all_volumes_in_order(self, two_cases: tuple[dict, dict]) -> None:
        slices = dataset(*two_cases)
        assert len(slices) == 5
        assert [item["image"].unique().tolist() for item in slices] == [[10], [11], [12], [20], [21]]
        assert [bool(item["label"].any()) for item in slices] == [False, True, False, True, False]

    def test_training_slices_have_shapes_and_types(self, two_cases: tuple[dict, dict]) -> None:
        item = dataset(*two_cases, num_slices=3)[0]
        assert (item["image"].shape, item["image"].dtype) == ((3, 4, 6), torch.float16)
        assert (item["label"].shape, item["label"].dtype) == ((1, 4, 6), torch.uint8)

    def test_label_lies_on_its_slice(self, two_cases: tuple[dict, dict]) -> None:
        assert torch.equal(dataset(*two_cases)[1]["label"], two_cases[0]["label"][..., 1].byte())

    def test_training_slices_make_batches_without_metadata(self, two_cases: tuple[dict, dict]) -> None:
        for data in two_cases:
            data.update({key: MetaTensor(value, meta={"case": "a"}) for key, value in data.items()})
        (batch,) = DataLoader(dataset(*two_cases, num_slices=3), batch_size=5)
        assert batch["image"].shape == (5, 3, 4, 6)
        assert type(batch["image"]) is type(batch["label"]) is torch.Tensor

    def test_training_slices_preprocess_each_case_once(self, two_cases: tuple[dict, dict]) -> None:
        calls = []

        def transform(data: dict) -> dict:
            calls.append(data)
            return data

        slices = SliceDataset(two_cases, transform, progress=False, num_workers=2)
        for _ in range(2):
            assert len(list(slices)) == 5
        assert len(calls) == 2

    def test_training_slices_keep_to_the_memory_said(self) -> None:
        slices = dataset(case(0, 3, size=(256, 256)))
        assert slices.images.nbytes + slices.labels.nbytes == 3 * 192 * 1024

    def test_training_slices_may_be_all_of_one_volume_of_one_slice(self) -> None:
        item = dataset(case(5, 1), num_slices=3)[0]
        assert item["image"].unique().tolist() == [5]


class TestNeighbours:
    def test_neighbouring_slices_stand_below_and_above(self, two_cases: tuple[dict, dict]) -> None:
        item = dataset(*two_cases, num_slices=3)[1]
        assert item["image"][:, 0, 0].tolist() == [10, 11, 12]

    def test_neighbouring_slices_never_come_from_another_volume(self, two_cases: tuple[dict, dict]) -> None:
        slices = dataset(*two_cases, num_slices=5)
        assert slices[2]["image"][:, 0, 0].tolist() == [10, 11, 12, 12, 12]
        assert slices[3]["image"][:, 0, 0].tolist() == [20, 20, 20, 21, 21]

    def test_neighbouring_slices_must_be_odd_in_number(self, two_cases: tuple[dict, dict]) -> None:
        with pytest.raises(ValueError, match="must be odd"):
            dataset(*two_cases, num_slices=2)


class TestWeights:
    @pytest.fixture
    def slices(self) -> SliceDataset:
        return dataset(case(0, 6, tumour=(2, 3)), case(10, 4, tumour=(0,)))

    @pytest.mark.parametrize("fraction", [0.0, 0.25, 0.6, 1.0])
    def test_weights_give_tumour_slices_the_share_asked_for(self, slices: SliceDataset, fraction: float) -> None:
        weights = slices.weights(fraction)
        tumour = torch.tensor([bool(item["label"].any()) for item in slices])
        assert weights.shape == (10,)
        assert weights[tumour].sum().item() == pytest.approx(fraction)
        assert weights.sum().item() == pytest.approx(1)

    def test_weights_treat_slices_of_a_kind_alike(self, slices: SliceDataset) -> None:
        assert len(slices.weights(0.6).unique()) == 2

    def test_weights_are_the_share_a_sampler_draws(self, slices: SliceDataset) -> None:
        sampler = torch.utils.data.WeightedRandomSampler(slices.weights(0.7), 4000)
        drawn = sum(bool(slices[place]["label"].any()) for place in sampler)
        assert drawn / 4000 == pytest.approx(0.7, abs=0.04)

    def test_weights_are_even_without_a_share(self, slices: SliceDataset) -> None:
        assert torch.equal(slices.weights(None), torch.full((10,), 0.1, dtype=torch.float64))

    @pytest.mark.parametrize("tumour", [(), (0, 1, 2)])
    def test_weights_are_even_where_all_slices_are_of_a_kind(self, tumour: tuple[int, ...]) -> None:
        weights = dataset(case(0, 3, tumour=tumour)).weights(0.6)
        torch.testing.assert_close(weights, torch.full((3,), 1 / 3, dtype=torch.float64))

    @pytest.mark.parametrize("fraction", [-0.1, 1.5])
    def test_weights_refuse_what_is_no_share(self, slices: SliceDataset, fraction: float) -> None:
        with pytest.raises(ValueError, match=f"between 0 and 1, got {fraction}"):
            slices.weights(fraction)


class TestRefuses:
    def test_slice_dataset_refuses_volumes_of_different_sizes(self) -> None:
        with pytest.raises(ValueError, match=r"differ in size .*\(4, 6\), \(5, 6\).*one size in the preprocessing"):
            dataset(case(0, 3), case(0, 3, size=(5, 6)))

    def test_slice_dataset_refuses_no_volume_at_all(self) -> None:
        with pytest.raises(ValueError, match="no case"):
            dataset()


class TestDescribe:
    def test_describe_names_the_file_of_a_slice(self, two_cases: tuple[dict, dict]) -> None:
        slices = dataset(*two_cases)
        slices.data = [{"case": "A", "image": ["a_1.tif", "a_2.tif", "a_3.tif"]}, {"case": "B", "image": ["b.nii"]}]
        described = [slices.describe(n) for n in range(5)]
        assert described == ["a_1.tif", "a_2.tif", "a_3.tif", "B, slice 1", "B, slice 2"]

    def test_items_say_their_place(self, two_cases: tuple[dict, dict]) -> None:
        assert [item["index"] for item in dataset(*two_cases)] == list(range(5))


class TestEpochSampler:
    def test_variants_of_a_slice_are_drawn_alike_and_leave_the_draws_of_slices_as_they_are(self) -> None:
        plain, varied = list(EpochSampler(torch.ones(50), 4000)), list(EpochSampler(torch.ones(50), 4000, variants=4))
        assert [index % 50 for index in varied] == plain
        counts = torch.bincount(torch.tensor([index // 50 for index in varied]))
        assert len(counts) == 4
        assert counts.min() > 850

    def test_epoch_sampler_draws_by_seed_and_epoch(self) -> None:
        draws = {}
        for seed, epoch in ((0, 1), (0, 2), (1, 1)):
            sampler = EpochSampler(torch.ones(50), 20, seed=seed)
            sampler.set_epoch(epoch)
            draws[seed, epoch] = list(sampler)
            assert list(sampler) == draws[seed, epoch]
        assert len({tuple(drawn) for drawn in draws.values()}) == 3

    def test_epoch_sampler_starts_where_told_once(self) -> None:
        sampler = EpochSampler(torch.ones(50), 20)
        whole = list(sampler)
        sampler.start = 15
        assert list(sampler) == whole[15:]
        assert list(sampler) == whole

    def test_epoch_sampler_draws_all_once_without_replacement(self) -> None:
        assert sorted(EpochSampler(torch.ones(9), 9, replacement=False)) == list(range(9))

    def test_epoch_sampler_draws_by_weight(self) -> None:
        sampler = EpochSampler(torch.tensor([0.0, 1.0, 3.0]), 4000)
        counts = np.bincount(list(sampler), minlength=3)
        assert counts[0] == 0
        assert counts[2] / counts[1] == pytest.approx(3, rel=0.15)

    @pytest.mark.parametrize(("num_replicas", "batch"), [(2, 4), (3, 2), (4, 2)])
    @pytest.mark.parametrize("start", [0, 5])
    def test_steps_of_all_processes_are_those_of_one(self, num_replicas: int, batch: int, start: int) -> None:
        alone, *samplers = (
            EpochSampler(torch.ones(50), 30, seed=1, num_replicas=number, rank=rank)
            for number, rank in [(1, 0), *((num_replicas, rank) for rank in range(num_replicas))]
        )
        for sampler in (alone, *samplers):
            sampler.start = start
        drawn, shares = list(alone), [list(sampler) for sampler in samplers]
        assert len({len(part) for part in shares}) == 1  # or one process would wait for another for ever
        step = num_replicas * batch
        for n in range(len(shares[0]) // batch):
            together = chain(*(part[n * batch : (n + 1) * batch] for part in shares))
            assert sorted(together) == sorted(drawn[n * step : (n + 1) * step])

    def test_epoch_sampler_says_how_many_it_takes(self) -> None:
        sampler = EpochSampler(torch.ones(50), 30, num_replicas=4, rank=3)
        assert len(sampler) == len(list(sampler)) == 7


class TestNeighborSteps:
    @staticmethod
    def dataset(**options: object) -> SliceDataset:
        volume = torch.arange(5.0).expand(1, 4, 4, 5)
        case = {"image": volume, "label": torch.zeros(1, 4, 4, 5)}
        return SliceDataset([case], dict, num_slices=3, progress=False, **options)

    def test_each_variant_has_the_neighbors_at_its_distance(self) -> None:
        dataset = self.dataset(neighbor_steps=(0, 1, 2))
        found = [dataset[2 + 5 * variant]["image"][:, 0, 0].tolist() for variant in range(3)]
        assert found == [[2, 2, 2], [1, 2, 3], [0, 2, 4]]
        assert [dataset[2 + 5 * variant]["index"] for variant in range(3)] == [2, 2, 2]

    @pytest.mark.parametrize("steps", [(), (-1, 1)])
    def test_wrong_distances_are_refused(self, steps: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="neighbor_steps"):
            self.dataset(neighbor_steps=steps)

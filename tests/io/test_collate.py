import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Compose, DivisiblePadd, Invertd, Orientationd

from mri_seg.io.collate import case_batch
from mri_seg.transforms.volume import NeighboringSlicesd


def case() -> dict:
    affine = torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0]))
    image = MetaTensor(torch.randn(1, 10, 12, 5), affine=affine, meta={"case": "x", "spacing_known": True})
    prepared = Compose([Orientationd("image", "PLS", labels=None), DivisiblePadd("image", k=(8, 8, 1))])(
        {"image": image}
    )
    return {**prepared, "label": torch.ones(1, 10, 12, 5), "name": "x", "number": 3}


class TestCaseBatch:
    def test_case_batch_is_as_monai_collates(self) -> None:
        one = case()
        found, expected = case_batch(one), list_data_collate([one])
        assert found.keys() == expected.keys()
        for key in ("image", "label", "number"):
            assert torch.equal(torch.as_tensor(found[key]), torch.as_tensor(expected[key]))
        assert found["name"] == expected["name"]
        image, like = found["image"], expected["image"]
        assert image.is_batch
        assert image.applied_operations == like.applied_operations
        assert image.meta.keys() == like.meta.keys()
        assert torch.equal(image.affine, like.affine)
        assert type(found["label"]) is torch.Tensor

    def test_case_batch_shares_the_memory_of_the_case(self) -> None:
        one = NeighboringSlicesd("image")(case())
        batch = case_batch(one)
        assert batch["image"].shape == (1, *one["image"].shape)
        assert batch["image"].data_ptr() == one["image"].data_ptr()
        assert batch["image"].stride()[1:] == one["image"].stride()

    def test_case_batch_gives_the_case_back_when_taken_apart(self) -> None:
        one = case()
        (again,) = decollate_batch(case_batch(one))
        assert torch.equal(again["image"], one["image"])
        assert again["image"].meta["case"] == "x"
        assert again["name"] == "x"

    def test_a_prediction_goes_back_to_the_grid_of_the_file(self) -> None:
        transform = Compose([Orientationd("image", "PLS", labels=None), DivisiblePadd("image", k=(8, 8, 1))])
        image = MetaTensor(torch.randn(1, 10, 12, 5), affine=torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0])))
        loader = DataLoader(Dataset([{"image": image}], transform), batch_size=None, collate_fn=case_batch)
        (batch,) = loader
        (one,) = decollate_batch({**batch, "pred": batch["image"]})
        back = Invertd("pred", transform, orig_keys="image")(one)["pred"]
        assert torch.equal(back.as_tensor(), image.as_tensor())
        assert torch.equal(back.affine, image.affine)

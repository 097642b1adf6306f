"""Contrasts and patients told from names."""

from __future__ import annotations

import pytest

from mri_seg.utils.contrast_names import Contrast, contrast_of, patient_of


class TestContrastOf:
    @pytest.mark.parametrize(
        "name",
        [
            "3DFLAIR",
            "T2FLAIR",
            "P1_fla",
            "P1_dark-fluid",
            "darkFluid",
            "FLAIR_SPACE",
            "t2_spc_da-fl_sag_p2_iso",
            "Sag CUBE T2 FLAIR +C",
            "3D_Brain_VIEW_FLAIR_SHC",
            "FLAIR_longTR",
            "BraTS-GLI-00000-000-t2f",
            "AxFlair",
            "12FLAIR3",
            "fluid attenuated inversion recovery",
            "EPI FLAIR",
            "FLAIR (FA 150)",
            "FLAIR fa=90",
            "sub-01_flair",
            "sub_01_FLAIR",
            "sub-1_ses-T1_FLAIR",
            "sub-1_acq-FLAIR_T2w",
            "P1_reg_FLAIR",
        ],
    )
    def test_contrast_of_flair(self, name: str) -> None:
        assert contrast_of(name) is Contrast.FLAIR

    @pytest.mark.parametrize(
        "name",
        [
            "AX_T1_FLAIR",
            "T1FLAIR",
            "T1w-FLAIR",
            "AxT1",
            "P1T1",
            "x_t1ce",
            "T1Gd",
            "t1_mprage_sag",
            "MP2RAGE",
            "Ax BRAVO",
        ],
    )
    def test_contrast_of_t1(self, name: str) -> None:
        assert contrast_of(name) is Contrast.T1

    @pytest.mark.parametrize("name", ["T2", "P1_t2w", "AX T2 TSE", "t2_blade", "SAGT2", "T2starW"])
    def test_contrast_of_t2(self, name: str) -> None:
        assert contrast_of(name) is Contrast.T2

    @pytest.mark.parametrize(
        "name", ["DIR FLAIR", "FLAIR DWI", "P1_ADC", "P1_CT", "AX PD TSE", "STIR", "sub-1_dir-AP_dwi"]
    )
    def test_contrast_of_another(self, name: str) -> None:
        assert contrast_of(name) is Contrast.OTHER

    @pytest.mark.parametrize("name", ["P1_tirm", "t2_tirm_tra", "t2_spc_ir_sag"])
    def test_contrast_of_inversion_recovery_that_may_be_stir(self, name: str) -> None:
        assert contrast_of(name) is Contrast.INVERSION_RECOVERY

    @pytest.mark.parametrize("name", ["FLAIR Sub", "FLAIR_FA", "fa flair"])
    def test_contrast_of_flair_or_a_map_of_it(self, name: str) -> None:
        assert contrast_of(name) is Contrast.FLAIR_OR_MAP

    @pytest.mark.parametrize(
        "name", ["P1", "patient1", "TCGA_DU_6408", "t10", "PD_01", "flame", "case_0003", "head", ""]
    )
    def test_contrast_of_nothing_is_unknown(self, name: str) -> None:
        assert contrast_of(name) is Contrast.UNKNOWN

    @pytest.mark.parametrize(
        ("name", "contrast"),
        [
            ("T1_to_FLAIR", Contrast.T1),
            ("FLAIR2T1", Contrast.FLAIR),
            ("T12FLAIR", Contrast.T1),
            ("P1_FLAIR_in_T1_space", Contrast.FLAIR),
            ("sub-1_space-FLAIR_T1w", Contrast.T1),
            ("sub-1_space-T1w_FLAIR", Contrast.FLAIR),
        ],
    )
    def test_contrast_is_that_of_the_image_and_not_of_the_grid_it_was_brought_to(
        self, name: str, contrast: Contrast
    ) -> None:
        assert contrast_of(name) is contrast


class TestPatientOf:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("P1_FLAIR", "P1_T1"),
            ("P1_T2_FLAIR_SPACE", "P1_t1_mprage"),
            ("BraTS-GLI-00000-000-t2f", "BraTS-GLI-00000-000-t1n"),
            ("sub-1_ses-2_FLAIR", "sub-1_ses-2_acq-3D_T1w"),
            ("FLAIR", "ax_T2"),
            ("P1", "P1_flair"),
        ],
    )
    def test_patient_name_is_the_same_where_the_contrast_differs_alone(self, one: str, other: str) -> None:
        assert patient_of(one) == patient_of(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [("P1_FLAIR", "P2_FLAIR"), ("P1", "P2"), ("sub-1_ses-1_FLAIR", "sub-1_ses-2_FLAIR"), ("a_cube", "a_space")],
    )
    def test_patient_name_differs_otherwise(self, one: str, other: str) -> None:
        assert patient_of(one) != patient_of(other)

"""The option that names further sequences."""

from __future__ import annotations

import pytest

from mri_seg.config.validation import check_values
from mri_seg.utils.sequence_names import sequence_names


@pytest.mark.parametrize("given", ["t1ce,t2", " t1ce , t2", ("t1ce", "t2"), ["t1ce", "t2"]])
def test_names_of_sequences_come_as_text_or_as_a_list(given: object) -> None:
    assert sequence_names(given) == ["t1ce", "t2"]


@pytest.mark.parametrize("given", [None, (), []])
def test_flair_alone_has_no_names_of_sequences(given: object) -> None:
    assert sequence_names(given) == []


@pytest.mark.parametrize("given", ["", "t1ce,", "t1ce,T1-CE", ["t2", "t2"], "-"])
def test_sequences_without_names_of_their_own_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"--sequences: .* expected a different name for each"):
        sequence_names(given)


def test_changes_of_lesions_are_for_flair_alone() -> None:
    check_values({"sequences": None, "fade_probability": 0.2})
    check_values({"sequences": "t1ce", "fade_probability": 0.0})
    with pytest.raises(ValueError, match="--fade_probability"):
        check_values({"sequences": "t1ce", "fade_probability": 0.2})
    with pytest.raises(ValueError, match="--transplant_probability"):
        check_values({"sequences": "t1ce", "transplant_probability": 0.2})

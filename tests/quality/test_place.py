"""The map of the places of tumours."""

from __future__ import annotations

import numpy as np

from mri_seg.quality.place import PlaceMap, shipped_place_map

FRONTAL = np.array([[0.5, 0.3, 0.7]])
CEREBELLUM = np.array([[0.3, 0.8, 0.1]])


class TestPlaceMap:
    def test_places_of_many_patients_are_frequent(self) -> None:
        places = PlaceMap.of([FRONTAL] * 8)
        assert places.frequency(FRONTAL)[0] > 10 * places.frequency(CEREBELLUM)[0]

    def test_lesions_of_either_side_count_as_the_same(self) -> None:
        places = PlaceMap.of([FRONTAL] * 8)
        assert places.frequency(FRONTAL * (-1, 1, 1))[0] == places.frequency(FRONTAL)[0]

    def test_patient_left_out_does_not_vouch_for_himself(self) -> None:
        both = PlaceMap.of([FRONTAL, CEREBELLUM])
        assert both.without(PlaceMap.of([CEREBELLUM])).frequency(CEREBELLUM)[0] < 1e-3

    def test_places_outside_the_box_belong_to_its_edge(self) -> None:
        places = PlaceMap.of([np.array([[1.0, 1.0, 1.0]])])
        assert places.frequency(np.array([[1.4, 1.2, 1.1]])) == places.frequency(np.array([[0.99, 0.99, 0.99]]))

    def test_text_gives_the_map_back(self) -> None:
        places = PlaceMap.of([FRONTAL, CEREBELLUM])
        again = PlaceMap.from_text(places.to_text())
        assert again.patients == 2
        np.testing.assert_array_equal(again.counts, places.counts)


class TestShippedMap:
    def test_cerebrum_is_a_usual_place_and_the_cerebellum_is_not(self) -> None:
        assert shipped_place_map().patients > 80
        assert shipped_place_map().frequency(FRONTAL)[0] > 0.1
        assert shipped_place_map().frequency(CEREBELLUM)[0] < 0.02

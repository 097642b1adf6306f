import logging

from mri_seg.utils.case_flags import add_flag, case_flags


class TestCaseFlags:
    def test_case_without_flags_has_none(self):
        assert case_flags({"case": "a"}) == []

    def test_flags_keep_their_order_and_are_logged_once(self, caplog):
        case = {"case": "a"}
        with caplog.at_level(logging.WARNING):
            for name in ("late", "early", "late"):
                add_flag(case, name, f"It is {name}.")
        assert [flag["name"] for flag in case_flags(case)] == ["late", "early"]
        assert [record.getMessage() for record in caplog.records] == ["a: It is late.", "a: It is early."]

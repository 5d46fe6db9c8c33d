"""What workers agree on beside the jobs: values that change only from what the caller has seen."""

import threading

import pytest

from penstock.model.errors import TextInvalid
from penstock.testing.conformance.trial import Conformance, Trial


class Sharing(Conformance):
    def test_value_is_there_for_all_until_it_is_changed(self, trial: Trial) -> None:
        assert trial.engine.shared("breakers") == {}
        assert trial.engine.share("breakers", "smtp", b"open", None)
        assert trial.engine.share("breakers", "crm", b"\0\xff", None)
        assert trial.engine.share("alerts", "smtp", b"", None)
        assert trial.engine.shared("breakers") == {"smtp": b"open", "crm": b"\0\xff"}
        assert trial.engine.shared("alerts") == {"smtp": b""}

    def test_value_changes_from_what_the_caller_has_seen(self, trial: Trial) -> None:
        trial.engine.share("breakers", "smtp", b"open", None)
        assert trial.engine.share("breakers", "smtp", b"probed", b"open")
        assert trial.engine.shared("breakers") == {"smtp": b"probed"}
        assert trial.engine.share("breakers", "smtp", None, b"probed")
        assert trial.engine.shared("breakers") == {}

    def test_value_that_is_another_by_now_stays(self, trial: Trial) -> None:
        trial.engine.share("breakers", "smtp", b"open", None)
        for value in (b"probed", None):
            for was in (None, b"", b"opened", b"ope"):
                assert not trial.engine.share("breakers", "smtp", value, was)
        assert trial.engine.shared("breakers") == {"smtp": b"open"}

    def test_value_that_is_not_there_changes_from_nothing_alone(self, trial: Trial) -> None:
        assert not trial.engine.share("breakers", "smtp", b"open", b"")
        assert not trial.engine.share("breakers", "smtp", None, b"open")
        assert trial.engine.share("breakers", "smtp", None, None)
        assert trial.engine.shared("breakers") == {}

    def test_of_many_who_saw_the_same_one_changes_it(self, trial: Trial) -> None:
        came, barrier = list[int](), threading.Barrier(8)

        def come(number: int) -> None:
            barrier.wait()
            if trial.engine.share("breakers", "smtp", b"%d" % number, None):
                came.append(number)

        threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(came) == 1
        assert trial.engine.shared("breakers") == {"smtp": b"%d" % came[0]}

    @pytest.mark.parametrize("name", ["", "a\0b", "x" * 201])
    def test_names_without_a_form_are_refused(self, trial: Trial, name: str) -> None:
        with pytest.raises(ValueError, match="names no shared value"):
            trial.engine.share("breakers", name, b"open", None)
        with pytest.raises(ValueError, match="names no shared value"):
            trial.engine.shared(name)

    def test_text_without_a_form_is_refused(self, trial: Trial) -> None:
        with pytest.raises(TextInvalid):
            trial.engine.share("breakers", "\ud800", b"open", None)

    def test_value_over_64_kib_is_refused(self, trial: Trial) -> None:
        assert trial.engine.share("breakers", "smtp", bytes(65_536), None)
        with pytest.raises(ValueError, match="65,537 bytes"):
            trial.engine.share("breakers", "crm", bytes(65_537), None)

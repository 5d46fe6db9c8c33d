"""`groups`, and the jobs of one group: which buried jobs belong together, and how they are found."""

from typing import Any

import pytest
from msgspec.structs import replace

from penstock.engine import Bury, Delete, Edit, Filter, Group, Kick
from penstock.model.groups import group_of
from penstock.model.job import ErrorInfo, Job, JobId
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.testing.conformance.trial import ERROR, Conformance, Trial

ONCE = Policy(max_attempts=1)
ODD = replace(ERROR, message="7 is odd", where="shop:check")


class Grouping(Conformance):
    def test_jobs_that_fail_alike_are_one_group(self, trial: Trial) -> None:
        first = bury(trial, ODD)
        began = trial.clock.wall_ms()
        trial.clock.turn(1000)
        second = bury(trial, replace(ODD, message="9 is odd", traceback="line 12", attempt=3))
        [group] = trial.engine.groups()
        assert group.id == group_of("default", "t", ODD) == trial.job(first).group
        assert (group.count, group.first_ms, group.last_ms) == (2, began, began + 1000)
        assert group.sample in (first, second)

    def test_queue_task_exception_and_place_tell_groups_apart(self, trial: Trial) -> None:
        bury(trial, ODD)
        bury(trial, ODD, queue="mail")
        bury(trial, ODD, task="u")
        bury(trial, replace(ODD, type="builtins.KeyError"))
        bury(trial, replace(ODD, where="shop:send"))
        bury(trial, ErrorInfo("crashed", message="killed by signal 9"))
        groups = trial.engine.groups()
        assert [group.count for group in groups] == [1] * 6
        assert [group.id for group in groups] == sorted({group.id for group in groups})

    def test_only_buried_jobs_are_in_a_group(self, trial: Trial) -> None:
        trial.end(trial.run(), Ending.FAILED, error=ODD, after_ms=5000)
        trial.end(trial.run(), Ending.CANCELLED)
        trial.run()
        trial.add()
        assert trial.engine.groups() == []

    def test_jobs_of_a_group_are_found_newest_first_and_page_by_page(self, trial: Trial) -> None:
        ids = [bury(trial, ODD) for _ in range(5)]
        bury(trial, replace(ODD, where="shop:send"))
        which = Filter(group=group_of("default", "t", ODD), limit=2)
        found: list[JobId] = []
        for _ in range(3):
            page = trial.engine.find(which)
            found += [job.id for job in page.jobs]
            which = replace(which, before=page.next)
        assert (found, page.next) == (ids[::-1], None)

    def test_group_and_other_filters_add_up(self, trial: Trial) -> None:
        first, second = bury(trial, ODD, args='["ada"]'), bury(trial, ODD, args='["bob"]')
        group = group_of("default", "t", ODD)
        for which, ids in (
            (Filter(group=group, text="bob"), [second]),
            (Filter(group=group, ids=(first,)), [first]),
            (Filter(group=group, queue="mail"), []),
            (Filter(group=group, states=frozenset({State.READY})), []),
            (Filter(group=group, states=frozenset({State.READY, State.BURIED}), before=second), [first]),
            (Filter(group="0" * 12), []),
        ):
            assert [job.id for job in trial.engine.find(which).jobs] == ids

    @pytest.mark.parametrize("alteration", [Kick(), Edit(priority=1), Delete()])
    def test_job_that_leaves_its_state_leaves_its_group(self, trial: Trial, alteration: Kick | Edit | Delete) -> None:
        first, second = bury(trial, ODD), bury(trial, ODD)
        trial.alter(first, alteration)
        [group] = trial.engine.groups()
        assert (group.count, group.sample) == (1, second)
        trial.alter(second, alteration)
        assert trial.engine.groups() == []
        assert trial.engine.find(Filter(group=group.id)).jobs == ()

    def test_job_that_fails_again_is_in_its_group_again(self, trial: Trial) -> None:
        id = bury(trial, ODD)
        before = trial.engine.groups()
        trial.alter(id, Kick())
        trial.end(trial.claim_one(), Ending.FAILED, error=ODD)
        assert trial.engine.groups() == before

    def test_jobs_buried_by_hand_are_a_group_of_their_queue_and_task(self, trial: Trial) -> None:
        ids = [trial.add(), trial.add(queue="mail"), trial.add(task="u"), trial.add()]
        trial.engine.alter(ids, Bury("wrong customer"))
        groups = {group.id: group.count for group in trial.engine.groups()}
        assert sorted(groups.values()) == [1, 1, 2]
        assert groups[group_of("default", "t", ErrorInfo("buried"))] == 2
        assert trial.counts() == trial.recount()

    def test_group_moves_with_its_job_to_another_store(self, trial: Trial) -> None:
        id = bury(trial, ODD)
        job, groups = trial.job(id), trial.engine.groups()
        trial.alter(id, Delete())
        trial.engine.load([job])
        assert trial.engine.groups() == groups

    def test_text_that_looks_like_a_group_makes_none(self, trial: Trial) -> None:
        hostile = replace(ODD, message='x","group":"ffffffffffff"', traceback='{"group":"eeeeeeeeeeee"}\0')
        id = bury(trial, hostile)
        assert [group.id for group in trial.engine.groups()] == [trial.job(id).group]
        assert trial.job(id).group == group_of("default", "t", hostile)

    def test_buried_job_without_an_error_of_its_burial_is_in_no_group(self, trial: Trial) -> None:
        id = bury(trial, ODD)
        job: Job = trial.job(id)
        trial.alter(id, Delete())
        trial.engine.load([replace(job, error=None)])
        assert (trial.engine.groups(), trial.job(id).group) == ([], "")

    def test_many_groups_of_many_jobs_agree_with_a_recount(self, trial: Trial) -> None:
        for number in range(30):
            bury(trial, replace(ODD, where=f"shop:{number % 7}"))
        groups = trial.engine.groups()
        assert [group.count for group in groups] == [recount(trial, group) for group in groups]
        assert sum(group.count for group in groups) == 30


def bury(trial: Trial, error: ErrorInfo, **fields: Any) -> JobId:
    """Give the id of a job that was buried with this error."""
    claim = trial.run(policy=ONCE, **fields)
    trial.end(claim, Ending.FAILED, error=error)
    return claim.id


def recount(trial: Trial, group: Group) -> int:
    jobs = trial.engine.find(Filter(group=group.id, limit=1000)).jobs
    assert group.sample in [job.id for job in jobs]
    return len(jobs)

"""The conformance suite: what every engine must do, verb by verb, race by race, and against the memory engine.

An engine's author writes a test module like this one, and runs it with pytest:

    class TestMine(EngineConformance):
        @pytest.fixture()
        def engine_factory(self, tmp_path) -> EngineFactory: ...

    TestMineAgainstMemory = machine(make_an_empty_store).TestCase
"""

from penstock.testing.conformance import (
    adding,
    altering,
    exchanging,
    falling,
    grouping,
    leasing,
    loading,
    looking,
    noting,
    racing,
    sharing,
    tending,
    transitions,
    within,
)
from penstock.testing.conformance.machine import machine as machine
from penstock.testing.conformance.trial import EngineFactory as EngineFactory
from penstock.testing.conformance.trial import Trial as Trial


class EngineConformance:
    """All classes of the suite; subclass it under a name that begins with `Test`.

    What does not apply to an engine skips itself; set it to None to leave it out, as `TestWithin = None`.
    """

    TestAdding = adding.Adding
    TestIdempotency = adding.Idempotency
    TestUniqueness = adding.Uniqueness
    TestCapacity = adding.Capacity
    TestChildren = adding.Children
    TestEdgeOfAdding = adding.EdgeOfAdding
    TestClaiming = exchanging.Claiming
    TestChanging = exchanging.Changing
    TestFencing = exchanging.Fencing
    TestBeating = exchanging.Beating
    TestStopping = exchanging.Stopping
    TestEdgeOfExchanging = exchanging.EdgeOfExchanging
    TestTransitions = transitions.Transitions
    TestFallingBack = falling.FallingBack
    TestUpgrading = falling.Upgrading
    TestEnrolling = leasing.Enrolling
    TestRenewing = leasing.Renewing
    TestDying = leasing.Dying
    TestEvicting = leasing.Evicting
    TestLapsing = leasing.Lapsing
    TestFallingDue = tending.FallingDue
    TestExpiring = tending.Expiring
    TestForgetting = tending.Forgetting
    TestLoading = loading.Loading
    TestGoingOn = loading.GoingOn
    TestLoadingKeys = loading.LoadingKeys
    TestEdgeOfLoading = loading.EdgeOfLoading
    TestAltering = altering.Altering
    TestCancelling = altering.Cancelling
    TestKicking = altering.Kicking
    TestEditing = altering.Editing
    TestRescheduling = altering.Rescheduling
    TestBurying = altering.Burying
    TestDeleting = altering.Deleting
    TestQueues = altering.Queues
    TestNoting = noting.Noting
    TestRemembering = noting.Remembering
    TestSharing = sharing.Sharing
    TestLooking = looking.Looking
    TestFinding = looking.Finding
    TestGrouping = grouping.Grouping
    TestWaiting = looking.Waiting
    TestHandles = looking.Handles
    TestRacing = racing.Racing
    TestWithin = within.Within
    TestNotWithin = within.NotWithin


__all__ = ["EngineConformance", "EngineFactory", "Trial", "machine"]

"""After ESTALE the kernel opens again: a second open is one that comes soon and names the same view."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fusefs.failures import Caller
from fusefs.handles.stale_opens import REMEMBERED_OPENS, SECOND_OPEN_SECONDS, StaleOpens
from fusefs.session.session import Session
from fusefs.views.formats import HISTORY, LOG, View

PIDS = st.integers(0, 4)
SESSIONS = tuple(Session(f"a_b_{number}") for number in (1, 2))
VIEWS = (View(HISTORY), View(LOG))
OPENS = st.tuples(st.sampled_from(SESSIONS), st.sampled_from(VIEWS))
Opened = tuple[Session, View]


class Opens(RuleBasedStateMachine):
    """Opens by several processes, against a dictionary of the last ESTALE of each."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.opens = StaleOpens(lambda: self.time)
        self.model: dict[int, tuple[Opened, float]] = {}

    @rule(pid=PIDS, opened=OPENS)
    def is_answered(self, pid: int, opened: Opened) -> None:
        self.opens.answered(Caller(pid, 0, 0), *opened)
        if pid:
            self.model[pid] = opened, self.time

    @rule(pid=PIDS, opened=OPENS)
    def opens_again(self, pid: int, opened: Opened) -> None:
        known, at = self.model.pop(pid, (None, 0.0))
        expected = known == opened and self.time - at < SECOND_OPEN_SECONDS
        assert self.opens.is_second(Caller(pid, 0, 0), *opened) is expected

    @rule(seconds=st.sampled_from([0.1, SECOND_OPEN_SECONDS / 2, SECOND_OPEN_SECONDS]))
    def passes(self, seconds: float) -> None:
        self.time += seconds

    @invariant()
    def remembers_few(self) -> None:
        assert len(self.opens._answered) <= REMEMBERED_OPENS


TestOpens = Opens.TestCase


def test_of_many_opens_the_first_are_forgotten() -> None:
    opens = StaleOpens(lambda: 0.0)
    for pid in range(1, REMEMBERED_OPENS + 2):
        opens.answered(Caller(pid, 0, 0), SESSIONS[0], VIEWS[0])
    assert not opens.is_second(Caller(1, 0, 0), SESSIONS[0], VIEWS[0])
    assert opens.is_second(Caller(2, 0, 0), SESSIONS[0], VIEWS[0])


def test_callers_outside_of_the_mounts_pid_namespace_are_not_told_apart() -> None:
    opens = StaleOpens(lambda: 0.0)
    opens.answered(Caller(0, 0, 0), SESSIONS[0], VIEWS[0])
    assert not opens.is_second(Caller(0, 0, 0), SESSIONS[0], VIEWS[0])

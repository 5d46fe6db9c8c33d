"""The board: what a process shows, another process can read."""

import os
import subprocess
import sys

from penstock.engine import MOST_AT_ONCE
from penstock.worker.board import RING, Board, BoardState

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def test_another_process_sees_a_running_job() -> None:
    board = Board.create(3)
    program = (
        "import sys; from penstock.worker.board import Board\n"
        f"board = Board(int(sys.argv[1]), 3); board.beat(5); board.set_held(2); board.occupy(1, -7, {ID!r}, 99)"
    )
    subprocess.run([sys.executable, "-c", program, str(board.descriptor)], pass_fds=[board.descriptor], check=True)
    (shown,) = board.running()
    assert (shown.place, shown.token, shown.id, shown.deadline_ns) == (1, -7, ID, 99)
    assert (board.last_beat_ns, board.held) == (5, 2)


def test_started_names_running_and_ended_jobs_but_no_others() -> None:
    board = Board.create(2)
    board.occupy(0, 11, ID, 0)
    board.occupy(1, 22, ID, 0)
    board.vacate(1)
    assert board.started() == {11, 22}
    assert [shown.token for shown in board.running()] == [11]


def test_job_without_limit_shows_none() -> None:
    board = Board.create(1)
    board.occupy(0, 11, ID, 0)
    assert board.running()[0].deadline_ns is None


def test_long_job_is_known_as_started_after_thousands_of_short_ones() -> None:
    board = Board.create(2)
    board.occupy(0, 1, ID, 0)
    for token in range(2, 3 * RING):
        board.occupy(1, token, ID, 0)
        board.vacate(1)
    assert 1 in board.started()
    board.vacate(0)
    for token in range(3 * RING, 3 * RING + 2 * MOST_AT_ONCE):
        board.occupy(1, token, ID, 0)
        board.vacate(1)
    assert 1 in board.started()


def test_state_and_process_group_are_shown() -> None:
    board = Board.create(1)
    assert board.state is BoardState.STARTING
    board.set_state(BoardState.WORKING)
    board.occupy(0, 3, ID, 0)
    board.set_group(0, 1234)
    assert board.state is BoardState.WORKING
    assert board.groups() == [1234]


def test_close_leaves_no_descriptor() -> None:
    board = Board.create(1)
    descriptor = board.descriptor
    board.close()
    assert not os.path.exists(f"/proc/self/fd/{descriptor}")

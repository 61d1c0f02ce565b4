"""What the user is told when a sweep stops."""

import pytest
from sweeps import SmallSweep


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done_says_how_to_go_on_and_loses_nothing(
    small: SmallSweep, planted, train_with
):
    def interrupt(trial, keeper):
        if len(planted.trained) == 5:
            raise KeyboardInterrupt

    train_with(interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"Stopped: 5 of 8 .* Run the same again"):
        small.run()
    train_with(lambda trial, keeper: None)
    runs = small.run()
    assert len(planted.trained) == len(set(planted.trained)) == len(runs) == 8
    assert {run.state for run in runs} == {"complete"}


@pytest.mark.slow
def test_a_termination_prints_how_to_go_on(small: SmallSweep, planted, train_with, capsys):
    def terminate(trial, keeper):
        if len(planted.trained) == 2:
            raise SystemExit(143)

    train_with(terminate)
    with pytest.raises(SystemExit):
        small.run(announcement="the plan")
    printed = capsys.readouterr().err
    assert "the plan" in printed
    assert "Stopped: 2 of 8 trials are done and kept in sqlite:///" in printed

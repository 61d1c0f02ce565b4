"""A sweep with a goal from the call to the report."""

import goal_sweep
import pytest

from flops_fit.sweep.execution import worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("goal")


@pytest.fixture(scope="module")
def result(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(worker, "train", None)  # set again by `run`, and put back at the end
        yield goal_sweep.run(folder)


def test_the_answer_is_as_precise_as_asked_for(result):
    low, high = result.predict(goal_sweep.TARGET).num_params_interval
    assert high / low <= 1.05 * goal_sweep.UNTIL  # with more bootstrap draws than in a round


def test_the_rounds_are_with_the_result_and_in_the_report(result, folder):
    rounds = result.findings.rounds
    assert rounds["flops"].is_monotonic_increasing
    assert rounds["next"].iloc[-1] == []
    assert "as precise as asked for" in rounds["message"].iloc[-1]
    (report,) = folder.rglob("report.html")
    assert 'id="rounds-head"' in report.read_text()
    assert len(list(folder.rglob("plots/rounds.*"))) == 1


def test_the_same_call_trains_nothing_adds_no_round_and_says_the_goal(result, folder, capsys):
    before = goal_sweep.trained(folder)
    again = goal_sweep.run(folder)
    assert goal_sweep.trained(folder) == before
    assert len(again.findings.rounds) == len(result.findings.rounds)
    assert len(set(before)) == len(before) == len(result.runs)
    message = result.findings.rounds["message"].iloc[-1]
    assert message in capsys.readouterr().err
    assert f"Goal: {message}" in repr(again)

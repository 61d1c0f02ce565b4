import pytest

from flops_fit.laws.check import Check, Checks, graded


def test_check_reads_as_a_sentence():
    check = Check("code", "warn", "This is odd.", "Look.")
    assert str(check) == "warn: This is odd. Look."
    assert graded("x", 1.0, 2.0, 3.0, "m", "a") == []
    assert graded("x", float("nan"), 2.0, 3.0, "m", "a") == []
    assert [graded("x", v, 2.0, 3.0, "m", "a")[0].severity for v in (2.5, 3.5)] == [
        "warn",
        "refuse",
    ]


@pytest.mark.parametrize("severity", ["note", "warn", "refuse"])
def test_checks_are_a_tuple_that_reads_as_lines_and_as_html(severity):
    check = Check("a-code", severity, "<b> is bold", "Do it.")
    checks = Checks([check, check])
    assert checks == (check, check)
    assert repr(checks) == f"{check}\n{check}"
    page = checks._repr_html_()
    assert page.count(f"<b>{severity}</b> &lt;b&gt; is bold <i>Do it.</i>") == 2
    assert check._repr_html_() in page


def test_no_check_is_said_too():
    assert repr(Checks()) == "no checks: nothing is doubtful"
    assert "nothing is doubtful" in Checks()._repr_html_()

from flops_fit.laws.check import Check, graded


def test_check_reads_as_a_sentence():
    check = Check("code", "warn", "This is odd.", "Look.")
    assert str(check) == "warn: This is odd. Look."
    assert graded("x", 1.0, 2.0, 3.0, "m", "a") == []
    assert graded("x", float("nan"), 2.0, 3.0, "m", "a") == []
    assert [graded("x", v, 2.0, 3.0, "m", "a")[0].severity for v in (2.5, 3.5)] == [
        "warn",
        "refuse",
    ]

import pytest

from flops_fit.laws.comparison.comparable import doubts, incomparable

META = {
    "loss_fn": "mine.loss",
    "data_unit": "tokens",
    "flops_convention": "measured",
    "data_fingerprint": "abc",
    "held_out": "blocks",
    "eval_examples": "2048",
}
NAMES = ("a", "b")


def test_sweeps_that_agree_can_be_compared():
    assert incomparable(NAMES, (META, META), per_byte=False) == []
    assert doubts(NAMES, (META, META), per_byte=False) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss_fn": "other.loss"}, "the loss differs: mine.loss in 'a', other.loss in 'b'"),
        ({"data_unit": "examples"}, "what D counts differs"),
        ({"flops_convention": "6ND"}, "how FLOPs are counted differs"),
        ({"data_fingerprint": "xyz"}, "the held-out data of 'a' and 'b' differ"),
        ({"held_out": "random"}, "bytes_per_token="),
    ],
)
def test_what_differs_is_named(change, said):
    (fault,) = incomparable(NAMES, (META, {**META, **change}), per_byte=False)
    assert said in fault


def test_training_data_may_differ_where_the_held_out_data_are_given():
    one, other = ({**META, "data_fingerprint": text} for text in ("abc+eval", "xyz+eval"))
    assert incomparable(NAMES, (one, other), per_byte=False) == []


def test_other_tokens_are_compared_per_byte_and_that_is_said():
    other = {**META, "data_fingerprint": "xyz"}
    assert incomparable(NAMES, (META, other), per_byte=True) == []
    assert [check.code for check in doubts(NAMES, (META, other), per_byte=True)] == ["per-byte"]


@pytest.mark.parametrize("metas", [({}, {}), (META, {})])
def test_tables_that_say_nothing_are_compared_and_that_is_said(metas):
    assert incomparable(NAMES, metas, per_byte=False) == []
    assert [check.code for check in doubts(NAMES, metas, per_byte=False)] == ["unknown-loss"]


def test_means_over_other_numbers_of_examples_are_doubtful():
    other = {**META, "eval_examples": "512"}
    (check,) = doubts(NAMES, (META, other), per_byte=False)
    assert check.severity == "warn"
    assert "2048 and 512" in check.message

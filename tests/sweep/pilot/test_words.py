from dataclasses import replace

import pytest
from pilots import planted_recipe, rows_of

from flops_fit.sweep.pilot.recipes import Chosen
from flops_fit.sweep.pilot.search import Search
from flops_fit.sweep.pilot.words import chosen_in_words, law_in_words


@pytest.fixture
def trials():
    return rows_of()[1]


def words(trials, law, checks=0, **search):
    rows = replace(rows_of()[0], law=law)
    return law_in_words(rows, Search(trials[:2], True, **search), checks)


def test_what_the_pilot_found(trials):
    said = words(trials, planted_recipe(rate=0.02, batch=4), cut_short=False)
    assert said.startswith("Pilot (2 trials, 1.2e+08 FLOPs): learning rate 0.02 x")
    assert "batch 4 examples x D^0.60 about N = 1.00k" in said


def test_what_cut_it_short_and_what_the_check_added(trials):
    said = words(trials, planted_recipe(), checks=7, cut_short=True)
    assert "(ended at what it may cost) and check (7 trials): learning rate" in said


def test_a_pilot_without_a_law_says_what_is_done(trials):
    assert "the rule of DeepSeek LLM is used" in words(trials, None, cut_short=False)


def test_which_trials_are_off_and_what_follows(trials):
    assert chosen_in_words(Chosen(list(trials), [], again=False, flops=0.0), "width") == ()
    (again,) = chosen_in_words(Chosen([], list(trials[:6]), again=True, flops=3e8), "width")
    assert "6 trials off" in again
    assert "and 1 more" in again
    assert f"width={trials[0].size} at " in again
    assert again.endswith("trained again, 3e+08 FLOPs")
    (left,) = chosen_in_words(Chosen([], list(trials[:1]), again=False, flops=3e8), "width")
    assert "widens the intervals" in left

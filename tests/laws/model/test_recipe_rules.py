import numpy as np
import pytest

from flops_fit.laws.model.recipe_rules import RULES, batch_by_rule, rule_of_batches

# (rule, N, D, published peak rate, published batch in tokens)
PUBLISHED = {
    "DeepSeek LLM 7B": ("deepseek", 7e9, 2e12, 4.2e-4, 2304 * 4096),
    "DeepSeek LLM 67B": ("deepseek", 67e9, 2e12, 3.2e-4, 4608 * 4096),
    "Step Law's own sweep, 215 M": ("steplaw", 214663680, 4e9, 1.83e-3, 87 * 2048),
    "Step Law's own sweep, 268 M": ("steplaw", 268304384, 5e9, 1.54e-3, 91 * 2048),
    "Porian 108 M": ("porian", 108e6, 2e9, 4.7e-3, 160 * 2048),
    "Porian 864 M": ("porian", 864e6, 2e10, 2.35e-3, 640 * 2048),
}


@pytest.mark.parametrize(("rule", "N", "D", "rate", "batch"), PUBLISHED.values(), ids=PUBLISHED)
def test_rules_give_what_was_published(rule, N, D, rate, batch):
    assert RULES[rule](6 * N * D, N, D) == pytest.approx((rate, batch), rel=0.08)


@pytest.mark.parametrize(("rule", "falls"), [("deepseek", 0.125), ("porian", 1 / 6)])
def test_rate_falls_along_the_frontier(rule, falls):
    small, large = (RULES[rule](6 * n * 20 * n, n, 20 * n)[0] for n in (1e6, 1e8))
    assert small / large == pytest.approx(1e4**falls)


@pytest.mark.parametrize("rule", RULES)
def test_batch_grows_along_the_frontier(rule):
    small, large = (RULES[rule](6 * n * 20 * n, n, 20 * n)[1] for n in (1e6, 1e8))
    assert small < large


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_recognised_by_its_batches(rule):
    C, N = np.array([1e17, 3e17, 1e18, 3e18]), np.array([4e7, 6e7, 1e8, 2e8])
    D = C / (6 * N)
    batches = [batch_by_rule(rule, *place, "tokens", 512.0) for place in zip(C, N, D, strict=True)]
    assert rule_of_batches(C, N, D * 1.001, batches, 512.0) == rule
    assert rule_of_batches(C, N, D, [*batches[:3], 2 * batches[3]], 512.0) == ""
    assert rule_of_batches(C, N, D, [8, 8, 8, 8], 512.0) == ""  # a number, and no rule

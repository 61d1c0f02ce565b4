"""A sweep on padded text, from the arguments to the runs that are fitted."""

import pytest
import ragged
import torch
from ragged import LM, loader, rows
from torch import nn

import flops_fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::flops_fit.errors.FlopsFitWarning"),
]


def sweep(folder, name, loss, **recipe):
    return flops_fit.find_optimal(
        LM, "width", {}, loader(data=rows(300)), loss, [3e6], sizes=[3, 4, 5], name=name,
        recipe=flops_fit.Recipe(max_epochs=1e9, learning_rate=0.01, **recipe, pilot=False),
        tracking_uri=f"sqlite:///{folder}/mlflow.db", extend=False,
    )  # fmt: skip


def test_runs_carry_the_d_and_c_that_they_were_trained_with(tmp_path):
    result = sweep(tmp_path, "padded", ragged.next_label_mean, batch_size=8)
    plan = flops_fit.plan_sweep(
        LM, "width", {}, loader(data=rows(300)), ragged.next_label_mean, [3e6], sizes=[3, 4, 5],
        recipe=flops_fit.Recipe(max_epochs=1e9, learning_rate=0.01, batch_size=8),
    )  # fmt: skip
    planned = plan.to_frame().set_index("trial_id").loc[result.runs.trial_id]
    assert (result.runs.num_tokens.to_numpy() != planned.num_tokens.to_numpy()).any()
    assert result.runs.num_tokens.to_numpy() == pytest.approx(planned.num_tokens, rel=0.1)
    assert result.runs.flops.to_numpy() == pytest.approx([3e6] * 3, rel=0.1)


class Still(LM):
    """The same for every size; its weights hardly move."""

    def __init__(self, width):
        super().__init__(width)
        torch.manual_seed(0)
        self.table = nn.Parameter(3 * torch.randn(ragged.VOCAB, ragged.VOCAB))

    def forward(self, input_ids, labels=None):
        return self.table[input_ids] + 0 * super().forward(input_ids)


@pytest.mark.parametrize("loss", [ragged.next_label_mean, ragged.sum_and_count, ragged.odd_mean])
def test_the_loss_of_a_frozen_model_does_not_depend_on_the_batch(tmp_path, loss):
    losses = []
    for batch in (1, 16):
        result = flops_fit.find_optimal(
            Still, "width", {}, loader(data=rows(300)), loss, [3e6], sizes=[3, 4, 5],
            name=f"b{batch}", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", extend=False,
            recipe=flops_fit.Recipe(max_epochs=1e9, learning_rate=1e-12, batch_size=batch),
        )  # fmt: skip
        losses += result.runs.loss.tolist()
    assert losses == pytest.approx([losses[0]] * 6, rel=1e-5)

"""Models of other libraries, untouched, from plan to result."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

import flops_fit
from flops_fit.errors import ArgumentError

transformers = pytest.importorskip("transformers")

VOCAB, CONTEXT = 32, 16
RECIPE = flops_fit.Recipe(batch_size=4, max_epochs=1e9, learning_rate=3e-3, eval_examples=32)


def gpt2(n_embd: int, n_layer: int = 1) -> torch.nn.Module:
    """A function around a class that takes a configuration."""
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=n_embd, n_layer=n_layer, n_head=2, vocab_size=VOCAB, n_positions=CONTEXT,
            bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    model.num_params = model.num_parameters
    return model


class ResNet(transformers.ResNetForImageClassification):
    """A subclass instead."""

    def __init__(self, width: int) -> None:
        super().__init__(
            transformers.ResNetConfig(
                embedding_size=width, hidden_sizes=[width, 2 * width], depths=[1, 1],
                layer_type="basic", num_labels=10,
            )
        )  # fmt: skip

    def num_params(self) -> int:
        return self.num_parameters()


def counting_rows() -> list[dict[str, torch.Tensor]]:
    """Rows that count up by one or by two."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, VOCAB, (400, 1), generator=generator)
    by = torch.randint(1, 3, (400, 1), generator=generator)
    return [{"input_ids": row, "labels": row} for row in (first + by * torch.arange(16)) % VOCAB]


def own_loss(outputs, batch):
    return outputs.loss


def logits_loss(outputs, targets):
    return F.cross_entropy(outputs.logits, targets)


def assert_trained(result: flops_fit.Result) -> None:
    runs = result.runs
    assert set(runs["state"]) == {"complete"}
    assert (runs.groupby("compute_budget")["size"].nunique() == 4).all()
    assert runs["flops"].to_numpy() == pytest.approx(runs["compute_budget"].to_numpy(), rel=0.06)
    assert runs.groupby("size")["num_params"].first().is_monotonic_increasing


def test_gpt2_of_transformers_on_mapping_batches(store):
    arguments = {
        "model_cls": gpt2, "model_size_param": "n_embd", "dataset": counting_rows(),
        "loss_fn": own_loss, "compute_budgets": [2e7, 4e7], "sizes": [4, 6, 8, 10],
        "recipe": RECIPE,
    }  # fmt: skip
    plan = flops_fit.plan_sweep(**arguments)
    assert (plan.data_unit, plan.flops_convention) == ("tokens", "measured")
    for trial in plan.trials:
        d = trial.size
        products = 12 * d**2 + VOCAB * d + 2 * CONTEXT * d  # by weights, then attention's two
        assert trial.flops == 6 * products * trial.num_tokens
    result = flops_fit.find_optimal(
        **arguments, name="gpt2", tracking_uri=f"sqlite:///{store}/mlflow.db"
    )
    assert_trained(result)
    smallest = result.runs[result.runs["size"] == 4].sort_values("num_tokens")["loss"]
    assert smallest.is_monotonic_decreasing  # more tokens, less loss
    assert smallest.iloc[-1] < 3.2  # ln 32 is 3.47


def test_a_resnet_of_transformers_on_images(store):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 10
    images = torch.randn(400, 3, 16, 16, generator=generator) + labels.view(-1, 1, 1, 1) / 3
    result = flops_fit.find_optimal(
        ResNet, "width", dataset=TensorDataset(images, labels), loss_fn=logits_loss,
        compute_budgets=[2e7, 4e7], sizes=[2, 3, 4, 5], recipe=RECIPE, name="resnet",
        tracking_uri=f"sqlite:///{store}/mlflow.db",
    )  # fmt: skip
    assert_trained(result)
    assert result.runs["loss"].min() < 2.2  # ln 10 is 2.30


def test_what_the_error_advises_serves_a_class_that_is_not_ones_own():
    def untold(n_embd):
        model = gpt2(n_embd)
        del model.num_params
        return model

    common = {
        "model_size_param": "n_embd", "dataset": counting_rows(), "loss_fn": own_loss,
        "compute_budgets": [2e7], "sizes": [4, 6, 8],
    }  # fmt: skip
    with pytest.raises(ArgumentError, match=r"takes no 'n_embd'.* pass a function of 'n_embd'"):
        flops_fit.plan_sweep(transformers.GPT2LMHeadModel, **common)
    with pytest.raises(ArgumentError, match="GPT2LMHeadModel has no num_params") as caught:
        flops_fit.plan_sweep(untold, **common)
    advice = str(caught.value).split("`")[-2]
    model = untold(4)
    exec(advice, {"model": model})
    assert model.num_params() == gpt2(4).num_params()

import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.task import model_cost
from flops_fit.sweep.task.model_cost import build_empty, cost_of, params_of
from flops_fit.sweep.task.task import Task


def mse_to_zero(outputs, targets):
    return outputs.square().mean()


class Sized(nn.Module):
    """Something with a count, for models that break one rule each."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(4, width)

    def forward(self, x):
        return self.layer(x)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())


class OnlyReal(Sized):
    """Looks at its numbers, as the meta device cannot."""

    def forward(self, x):
        return self.layer(x) * (2.0 if x.sum().item() > 0 else 1.0)


class BuildsReal(Sized):
    """Makes its tensors on the CPU whatever the default device."""

    def __init__(self, width):
        super().__init__(width)
        self.to_empty(device="cpu")


class Elementwise(Sized):
    """Neither matrix product nor convolution."""

    def __init__(self, width):
        super().__init__(width)
        self.layer = nn.LayerNorm(4)
        self.extra = nn.Parameter(torch.ones(width))


def test_linear_layer_by_hand(classes):
    cost = cost_of(Task(Sized, "width", {}, None, mse_to_zero), open_source(classes), 5)
    # Forward 2 x 4 x 5; backward the weight's gradient alone, since the input needs none.
    assert cost.flops_per_token == 2 * (2 * 4 * 5)
    assert (cost.num_params, cost.convention) == (25, "measured")


def test_mlp_by_hand(mlp, classes):
    cost = cost_of(Task(mlp, "width", {}, None, F.cross_entropy), open_source(classes), 7)
    up, down = 2 * 4 * 7, 2 * 7 * 3
    assert cost.flops_per_token == 2 * up + 3 * down


def test_convolution_with_batch_norm_by_hand(conv_net, images):
    cost = cost_of(Task(conv_net, "channels", {}, None, F.cross_entropy), open_source(images), 6)
    conv, head = 2 * (3 * 3 * 3) * 6 * 8 * 8, 2 * 6 * 10
    assert cost.flops_per_token == 2 * conv + 3 * head
    assert cost.convention == "measured"


@pytest.mark.parametrize("context", [16, 32])
def test_gpt_by_hand_attention_counted(context):
    d, layers, vocab = 32, 2, 256
    text = torch.zeros(40, context).long()
    task = Task(GPT, "d_model", {"context": context}, None, next_token_loss)
    cost = cost_of(task, open_source(TensorDataset(text, text)), d)
    matrices = 12 * d * d * layers + d * vocab
    scores = layers * 2 * (2 * context * d)  # QK^T and AV, forward, a token
    assert cost.flops_per_token == 6 * matrices + 3 * scores


def test_a_huge_model_costs_no_memory():
    text = torch.zeros(40, 64).long()
    task = Task(GPT, "d_model", {"n_layer": 2, "context": 64}, None, next_token_loss)
    assert cost_of(task, open_source(TensorDataset(text, text)), 32768).num_params > 2e10


@pytest.mark.parametrize("model", [OnlyReal, BuildsReal])
def test_fall_back_to_a_real_batch_is_warned_of(model, classes):
    task = Task(model, "width", {}, None, mse_to_zero)
    with pytest.warns(FlopsFitWarning, match="FLOPs: .*meta device.*one real batch instead"):
        cost = cost_of(task, open_source(classes), 5)
    assert (cost.flops_per_token, cost.convention) == (2 * (2 * 4 * 5), "measured on one batch")


def test_attention_is_counted_on_a_real_batch_too():
    class OnlyRealGPT(GPT):
        def forward(self, tokens_BT):
            assert tokens_BT.max().item() < 256
            return super().forward(tokens_BT)

    text = torch.zeros(40, 16).long()
    task = Task(OnlyRealGPT, "d_model", {"context": 16}, None, next_token_loss)
    with pytest.warns(FlopsFitWarning, match="one real batch instead"):
        cost = cost_of(task, open_source(TensorDataset(text, text)), 32)
    matrices, scores = 12 * 32 * 32 * 2 + 32 * 256, 2 * 2 * (2 * 16 * 32)
    assert cost.flops_per_token == 6 * matrices + 3 * scores


def test_last_resort_is_6nd_and_warned_of(classes):
    task = Task(Elementwise, "width", {}, None, mse_to_zero)
    with pytest.warns(FlopsFitWarning, match="no matrix product.*counting by 6ND instead"):
        cost = cost_of(task, open_source(classes), 5)
    assert (cost.flops_per_token, cost.convention) == (6 * 13, "6ND")


def test_model_that_does_not_run_says_so_itself(classes):
    class Broken(Sized):
        def forward(self, x):
            raise RuntimeError("width 5 does not divide")

    with pytest.raises(RuntimeError, match="width 5 does not divide"):
        cost_of(Task(Broken, "width", {}, None, mse_to_zero), open_source(classes), 5)


def test_conventions_asked_for(classes):
    task, source = Task(Sized, "width", {}, None, mse_to_zero), open_source(classes)
    assert cost_of(task, source, 5, "6ND").flops_per_token == 6 * 25
    by_hand = cost_of(task, source, 5, lambda model: 11 * model.num_params())
    assert (by_hand.flops_per_token, by_hand.convention) == (11 * 25, "custom")
    for wrong in (0, -1.0, float("nan"), float("inf"), "many"):
        with pytest.raises(ArgumentError, match="flops: expected FLOPs for one of the examples"):
            cost_of(task, source, 5, lambda model, wrong=wrong: wrong)


def test_missing_count_is_an_argument_error(classes):
    task = Task(nn.Linear, "out_features", {"in_features": 4}, None, mse_to_zero)
    with pytest.raises(ArgumentError, match="has no num_params"):
        params_of(task, 5)
    with pytest.raises(ArgumentError, match="has no num_params"):
        cost_of(task, open_source(classes), 5)


def test_shapes_tell_models_of_one_count_apart(classes):
    class Other(Sized):
        def __init__(self, width):
            super().__init__(width)
            self.layer = nn.Linear(width, 4)
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x @ self.layer.weight + self.bias

    source = open_source(classes)
    one, other = (
        cost_of(Task(m, "width", {}, None, mse_to_zero), source, 5) for m in (Sized, Other)
    )
    assert one.num_params == other.num_params == 25
    assert one.shapes != other.shapes


def test_building_leaves_the_callers_generators_alone(classes):
    class Draws(Sized):
        def __init__(self, width):
            super().__init__(width)
            random.random(), np.random.rand(), torch.rand(1, device="cpu")

    def state():
        numpy_state = np.random.get_state()
        return random.getstate(), numpy_state[1].tolist(), torch.random.get_rng_state().tolist()

    before = state()
    task = Task(Draws, "width", {}, None, mse_to_zero)
    assert all(p.is_meta for p in build_empty(task, 5).parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cost_of(Task(BuildsReal, "width", {}, None, mse_to_zero), open_source(classes), 5)
    assert state() == before


class Chatty(Sized):
    """Prints and warns whenever one is built, as some model libraries do."""

    def __init__(self, width):
        super().__init__(width)
        print("a banner")
        warnings.warn("a deprecation", stacklevel=1)


def test_a_search_for_sizes_builds_quietly(capsys, recwarn):
    task = Task(Chatty, "width", {}, TensorDataset(torch.ones(9, 4), torch.ones(9)), mse_to_zero)
    assert params_of(task, 3) == 15
    assert cost_of(task, task.open(), 3).convention == "measured"
    assert capsys.readouterr().out == ""
    assert not recwarn.list


def test_lazy_layers_are_refused():
    def lazy(width):
        model = Sized(width)
        model.layer = nn.LazyLinear(width)
        return model

    task = Task(lazy, "width", {}, TensorDataset(torch.ones(9, 4), torch.ones(9)), mse_to_zero)
    with pytest.raises(
        ArgumentError, match=r"lazy layers \(layer.weight, layer.bias\).*input size"
    ):
        params_of(task, 3)


class Recurrent(Sized):
    """Reads its four numbers one by one."""

    kind = nn.LSTM

    def __init__(self, width):
        super().__init__(width)
        self.cells = self.kind(1, width, batch_first=True)
        self.layer = nn.Linear(width, 3)

    def forward(self, x):
        return self.layer(self.cells(x[..., None])[0][:, -1])


class Gated(Recurrent):
    kind = nn.GRU


@pytest.mark.parametrize("model", [Recurrent, Gated, Sized])
def test_real_tensors_give_the_count_of_the_meta_device(classes, model):
    task = Task(model, "width", dataset=classes, loss_fn=F.cross_entropy)
    costs = cost_of(task, task.open(), 5)
    on_cpu = model_cost._counts_without_onednn(task, task.open(), 5)
    assert on_cpu[0] == costs.flops_per_token * 2  # of the two examples of a batch
    assert torch.backends.mkldnn.set_flags()[0]  # oneDNN is on again

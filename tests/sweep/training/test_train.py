import os
import random
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trials import RECIPE, a_trial

from flops_fit.errors import DivergedError
from flops_fit.runtime.signals import stop_at_boundary
from flops_fit.sweep.data.batch_order import trial_seed
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.kept import weights
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import DamagedError, Keeper
from flops_fit.sweep.training.train import train


def run(task, trial=None, recipe=RECIPE):
    points = []
    outcome = train(task, task.open(), trial or a_trial(), recipe, points.append)
    return outcome, points


@pytest.fixture
def task(mlp, classes, cross_entropy):
    return Task(mlp, "width", {"dropout": 0.1}, classes, cross_entropy)


def losses(task, trial=None):
    outcome, points = run(task, trial)
    return outcome.loss, [point.train_loss for point in points]


def test_same_trial_same_loss_to_the_last_bit_whatever_ran_before(task):
    first = losses(task)
    losses(task, a_trial(trial_id="00000000000000cd", size=16))
    torch.manual_seed(99)
    np.random.seed(99)
    assert losses(task) == first


def test_other_trials_draw_other_noise(task):
    assert losses(task) != losses(task, a_trial(trial_id="00000000000000cd"))
    assert trial_seed(a_trial(trial_id="f" * 16)) < 2**63


def test_workers_do_not_change_the_loss(task, classes):
    assert losses(replace(task, dataset=DataLoader(classes, num_workers=1))) == losses(task)


def test_callers_generators_are_left_as_they_were(task):
    def states():
        numpy_state = np.random.get_state()[1].tolist()
        return random.getstate(), numpy_state, torch.get_rng_state().tolist()

    before = states()
    run(task)
    assert states() == before


class Counting(torch.optim.SGD):
    """SGD that notes the learning rate of each of its steps."""

    steps: list[float]

    def step(self, closure=None):
        self.steps.append(self.param_groups[0]["lr"])
        return super().step(closure)


@pytest.mark.parametrize("form", ["map", "iterable", "loader"])
def test_exactly_the_planned_steps_and_examples(mlp, numbered, stream, cross_entropy, form):
    seen, evaluated = [], []

    class Watching(mlp):
        def forward(self, x):
            (seen if self.training else evaluated).extend(x[:, 0].tolist())
            return super().forward(x)

    rates = []
    Counting.steps = rates
    recipe = replace(RECIPE, optimizer=Counting, eval_examples=3)
    data = {
        "map": numbered(60),
        "iterable": stream(60),
        "loader": DataLoader(numbered(60), batch_size=7),
    }[form]
    outcome, points = run(Task(Watching, "width", {}, data, cross_entropy), a_trial(23, 7), recipe)
    assert len(rates) == 23
    assert len(seen) == 23 * 7 == points[-1].num_tokens
    assert outcome.flops == 100.0 * 23 * 7
    assert len(evaluated) == len(set(evaluated)) == 3
    assert not set(seen) & set(evaluated)
    assert len(set(seen)) == 57  # all that is not held out
    assert rates[-1] < 0.06 * max(rates)
    assert max(rates) == 0.02


def test_epochs_are_passes_over_the_training_share(mlp, numbered, stream, cross_entropy):
    outcome, _ = run(Task(mlp, "width", {}, numbered(100), cross_entropy), a_trial(19, 10))
    assert outcome.epochs == 2
    outcome, _ = run(Task(mlp, "width", {}, stream(2000), cross_entropy), a_trial(19, 10))
    assert np.isnan(outcome.epochs)


def test_points_of_the_curve(task):
    outcome, points = run(task, a_trial(50, 8), replace(RECIPE, log_points=5))
    assert [point.num_tokens for point in points] == [80, 160, 240, 320, 400]
    assert [point.flops for point in points] == [8e3, 16e3, 24e3, 32e3, 40e3]
    assert points[-1].learning_rate < 0.1 * points[0].learning_rate
    assert outcome.train_loss == points[-1].train_loss
    _, each = run(task, a_trial(50, 8), replace(RECIPE, log_points=50))
    for k, point in enumerate(points):
        mean = np.mean([p.train_loss for p in each[10 * k : 10 * k + 10]])
        assert point.train_loss == pytest.approx(mean, rel=1e-5)


def test_perceptron_learns(task):
    task = replace(task, model_kwargs={})
    before, _ = run(task, a_trial(1, 8, rate=1e-9), replace(RECIPE, learning_rate=1e-9))
    after, points = run(task, a_trial(400, 32, size=16))
    assert before.loss > 0.9
    assert after.loss < 0.25
    assert after.loss == pytest.approx(points[-1].train_loss, abs=0.15)
    assert after.tokens_per_second > 0


@pytest.mark.parametrize("step", [1, 7, 20])
def test_planted_divergence_is_raised_with_its_step(task, step):
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        factor = float("nan") if len(calls) == step else 1.0
        return F.cross_entropy(outputs, targets) * factor

    with pytest.raises(DivergedError, match=f"training loss is nan at step {step}") as caught:
        run(replace(task, loss_fn=loss))
    assert caught.value.step == step


def test_divergence_of_the_held_out_loss_is_raised(task):
    class Fragile(task.model_cls):
        def forward(self, x):
            return super().forward(x) * (1.0 if self.training else float("inf"))

    with pytest.raises(DivergedError, match=r"held-out loss is .* after the last step"):
        run(replace(task, model_cls=Fragile))


def test_batch_norm_trains_in_train_mode_and_is_judged_in_eval_mode(conv_net, images):
    modes = []

    class Watching(conv_net):
        def forward(self, x):
            modes.append((self.training, self.norm.training, torch.is_grad_enabled()))
            return super().forward(x)

    outcome, _ = run(Task(Watching, "channels", {}, images, F.cross_entropy), a_trial(12, 8, 4))
    assert modes[:12] == [(True, True, True)] * 12
    assert set(modes[12:]) == {(False, False, False)}
    assert np.isfinite(outcome.loss)


def test_held_out_loss_is_the_mean_over_examples_whatever_the_batch(mlp, classes, cross_entropy):
    class Fixed(mlp):
        def __init__(self, width):
            super().__init__(width)
            torch.manual_seed(0)
            for parameter in self.parameters():
                nn.init.normal_(parameter)

    x, y = classes.tensors
    held_out = TensorDataset(x[:13], y[:13])
    task = Task(Fixed, "width", {}, classes, cross_entropy, held_out)
    expected = F.cross_entropy(Fixed(8)(x[:13]), y[:13]).item()
    for batch in (1, 5, 64):
        still = a_trial(1, batch, rate=1e-12)
        assert run(task, still)[0].loss == pytest.approx(expected, rel=1e-5)


def test_random_held_out_data_are_the_same_for_every_trial(mlp, cross_entropy):
    class Masked(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return torch.randn(4), index % 3

    seen = []

    class Watching(mlp):
        def forward(self, x):
            if not self.training:
                seen.append(x)
            return super().forward(x)

    task = Task(Watching, "width", {}, Masked(), cross_entropy, Masked())
    run(task, a_trial(2, 40))
    run(task, a_trial(3, 40, trial_id="00000000000000cd"))
    first, second = seen
    assert torch.equal(first, second)


def test_mapping_batches(mlp, classes):
    class Keyed(mlp):
        def forward(self, x, labels):
            return super().forward(x)

    x, y = classes.tensors
    data = [{"x": a, "labels": b} for a, b in zip(x[:200], y[:200], strict=True)]
    task = Task(Keyed, "width", {}, data, lambda out, batch: F.cross_entropy(out, batch["labels"]))
    assert run(task)[0].loss > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(task, precision):
    outcome, _ = run(task, recipe=replace(RECIPE, precision=precision))
    full, _ = run(task)  # a precision of one sweep does not reach into the next
    assert outcome.loss != full.loss
    assert outcome.loss == pytest.approx(full.loss, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_resumed_ends_with_the_same_bits(task, tmp_path, precision):
    recipe = replace(RECIPE, log_points=20, precision=precision)
    whole, _ = run(task, recipe=recipe)
    keeper, source = Keeper(tmp_path / "kept", every_s=0.0), task.open()
    with pytest.raises(Stopped):
        train(task, source, a_trial(), recipe, stop_at(7), keeper)
    _, state = keeper.load()
    assert (state["scaler"] is not None) == (precision == "fp16")
    again = train(task, source, a_trial(), recipe, lambda point: None, keeper)
    assert (again.loss, again.train_loss) == (whole.loss, whole.train_loss)


def test_fp16_skips_updates_that_overflow_and_lowers_its_scale(task, tmp_path):
    """The first gradients, scaled by 65,536, do not fit into 16 bits; the loss itself is finite."""
    keeper = Keeper(tmp_path / "kept", every_s=0.0)

    def steep(outputs, targets):
        return 100 * F.cross_entropy(outputs, targets)

    task, recipe = replace(task, loss_fn=steep), replace(RECIPE, precision="fp16")
    outcome = train(task, task.open(), a_trial(), recipe, lambda point: None, keeper)
    _, state = keeper.load()
    assert 1 < state["scaler"]["scale"] < 65536
    assert np.isfinite(outcome.loss)


def test_source_can_be_shared_by_trials(task):
    source = open_source(task.dataset)
    one = train(task, source, a_trial(), RECIPE, lambda point: None)
    two = train(task, source, a_trial(), RECIPE, lambda point: None)
    assert one.loss == two.loss


class Stopped(Exception):
    """Raised to leave the loop at once, as a kill would."""


def stop_at(step, batch=8):
    def report(point):
        if point.num_tokens == step * batch:
            raise Stopped

    return report


class NoisyData(torch.utils.data.Dataset):
    """Examples that are augmented at random."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        return torch.randn(4) + index % 3, index % 3


class NoisyStream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return (NoisyData()[index] for index in range(60))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 7, 19, 20])
@pytest.mark.parametrize("data", [NoisyData(), NoisyStream()], ids=["map", "stream"])
def test_a_resumed_trial_ends_with_the_same_bits(task, tmp_path, data, stop):
    task = replace(task, dataset=data, eval_dataset=NoisyData())
    recipe = replace(RECIPE, log_points=20)
    whole, points = run(task, recipe=recipe)
    keeper = Keeper(tmp_path / "kept", every_s=0.0)
    source = task.open()
    with pytest.raises(Stopped):
        train(task, source, a_trial(), recipe, stop_at(stop), keeper)
    torch.manual_seed(1)
    rest = []
    again = train(task, source, a_trial(), recipe, rest.append, keeper)
    assert again.loss == whole.loss
    assert again.train_loss == whole.train_loss
    kept = max(stop - 1, 0)  # the point is reported before the state is kept
    assert [p.train_loss for p in rest] == [p.train_loss for p in points[kept:]]


class Remembering(nn.Module):
    """Keeps a running mean in a buffer that its state leaves out."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x - self.mean)


@pytest.mark.slow
def test_buffers_that_the_models_state_leaves_out_are_kept_too(classes, cross_entropy, tmp_path):
    task = Task(Remembering, "width", {}, classes, cross_entropy)
    trial, keeper = a_trial(), Keeper(tmp_path / "kept", every_s=0.0)
    whole = train(task, task.open(), trial, RECIPE, lambda point: None)
    with pytest.raises(Stopped):
        train(task, task.open(), trial, RECIPE, stop_at(7), keeper)
    again = train(task, task.open(), trial, RECIPE, lambda point: None, keeper)
    assert again.loss == whole.loss


def test_a_checkpoint_that_does_not_fit_the_trial_is_an_error(task, tmp_path):
    keeper = Keeper(tmp_path / "kept", every_s=0.0)
    keeper.save(3, {"model": {}, "rng": []})
    with pytest.raises(DamagedError, match="the checkpoint does not fit the trial"):
        train(task, task.open(), a_trial(), RECIPE, lambda point: None, keeper)


def test_learning_rates_of_one_place_are_compared_on_one_seed(task):
    own = a_trial(trial_id="00000000000000ab", rate=0.02)
    other = replace(own, trial_id="00000000000000cd", lr_multiplier=2.0, at_own_rate=own.trial_id)
    assert run(task, other)[0].loss == run(task, own)[0].loss


def test_metrics_are_means_over_the_held_out_examples_and_change_nothing(task, cross_entropy):
    plain, _ = run(task)
    metrics = {
        "again": cross_entropy,  # over batches of 8 and a last one of 4
        "accuracy": lambda out, y: (out.argmax(1) == y).float().mean().item(),
    }
    outcome, _ = run(replace(task, metrics=metrics))
    assert (plain.loss, plain.metrics) == (outcome.loss, {})
    assert outcome.metrics["again"] == outcome.loss
    right = 100 * outcome.metrics["accuracy"]
    assert right == pytest.approx(round(right), abs=1e-4)
    assert 40 < right < 100


@pytest.mark.slow
def test_the_held_out_loss_takes_none_of_the_training_time(mlp, classes, tmp_path):
    class Slow(mlp):
        def forward(self, x):
            if not self.training:
                time.sleep(0.5)
            return super().forward(x)

    task = Task(Slow, "width", {}, classes, F.cross_entropy)
    recipe = replace(RECIPE, eval_examples=8)
    keeper = Keeper(tmp_path / "kept", every_s=0.0)
    points = []
    outcome = train(task, task.open(), a_trial(), recipe, points.append, keeper)
    # The last point is reported before the evaluation, the last checkpoint saved during it.
    assert outcome.tokens_per_second == points[-1].tokens_per_second
    resumed = train(task, task.open(), a_trial(), recipe, points.append, keeper)
    assert resumed.wall_time_s == outcome.wall_time_s


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_trial_whose_state_was_damaged_ends_with_the_same_bits(task, tmp_path, caplog, name):
    whole, _ = run(task)
    keeper, source = Keeper(tmp_path / "kept", every_s=0.0), task.open()
    with pytest.raises(Stopped):
        train(task, source, a_trial(), replace(RECIPE, log_points=20), stop_at(7), keeper)
    file = keeper.folder / "000000000006" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 16
    file.write_bytes(data)
    again = train(task, source, a_trial(), RECIPE, lambda point: None, keeper)
    assert again.loss == whole.loss
    assert "is damaged" in caplog.text


@pytest.mark.slow
def test_a_trial_killed_after_its_last_step_only_evaluates(task, tmp_path):
    keeper = Keeper(tmp_path / "kept", every_s=0.0)
    whole, _ = run(task)
    source = task.open()
    train(task, source, a_trial(), RECIPE, lambda point: None, keeper)
    rest = []
    again = train(task, source, a_trial(), RECIPE, rest.append, keeper)
    assert (again.loss, again.train_loss, rest) == (whole.loss, whole.train_loss, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_state_at_the_next_step(task, tmp_path, number):
    keeper = Keeper(tmp_path / "kept", every_s=1e9)
    recipe = replace(RECIPE, log_points=20)
    before = signal.getsignal(number)

    def interrupt(point):
        if point.num_tokens == 5 * 8:
            signal.raise_signal(number)

    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(expected) as caught, stop_at_boundary() as stop:
        train(task, task.open(), a_trial(), recipe, interrupt, keeper, stop)
    assert number == signal.SIGINT or caught.value.code == 143
    step, _ = keeper.load()
    assert step == 5
    assert signal.getsignal(number) is before
    again = train(task, task.open(), a_trial(), recipe, lambda point: None, keeper)
    assert again.loss == run(task, recipe=recipe)[0].loss


@pytest.mark.parametrize("data", ["map", "stream"])
def test_parts_give_the_loss_of_the_whole_batch(mlp, classes, stream, cross_entropy, data):
    source = classes if data == "map" else stream(60)
    plain = Task(mlp, "width", {}, source, cross_entropy)
    whole, points = run(plain)
    parts, cut = run(plain, recipe=replace(RECIPE, accumulate=3))  # 2, 3 and 3 examples
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert [p.train_loss for p in cut] == pytest.approx([p.train_loss for p in points], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_when_memory_runs_out_micro_batches_shrink_and_the_loss_stays(mlp, classes, fault, caplog):
    sizes = []

    class Hungry(mlp):
        def forward(self, x):
            if self.training and len(sizes) > 30 and len(x) > 2:
                raise fault
            sizes.append(len(x))
            return super().forward(x)

    whole, _ = run(Task(mlp, "width", {}, classes, F.cross_entropy), a_trial(50))
    sizes.clear()
    cut, points = run(Task(Hungry, "width", {}, classes, F.cross_entropy), a_trial(50))
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert points[-1].num_tokens == 50 * 8
    assert "8 examples of a step are now processed 4 at a time" in caplog.text
    assert "8 examples of a step are now processed 2 at a time" in caplog.text


def test_memory_that_never_suffices_fails_the_trial(mlp, classes):
    class Greedy(mlp):
        def forward(self, x):
            raise MemoryError

    task = Task(Greedy, "width", {}, classes, F.cross_entropy)
    with pytest.raises(MemoryError):
        train(task, open_source(classes), a_trial(), RECIPE, lambda point: None)


def test_memory_that_runs_out_while_parameters_change_fails_the_trial(mlp, classes):
    """The same step once more would change some of them twice."""

    class Tight(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            raise MemoryError

    task = Task(mlp, "width", {}, classes, F.cross_entropy)
    with pytest.raises(MemoryError):
        run(task, recipe=replace(RECIPE, optimizer=Tight))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_models_train(task):
    plain = replace(task, model_kwargs={})
    compiled, _ = run(plain, a_trial(5), replace(RECIPE, compile=True))
    assert compiled.loss == pytest.approx(run(plain, a_trial(5))[0].loss, rel=1e-4)


def in_a_process(work):
    """Run `work` in a forked process; returns its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_moment_a_trial_ends_with_the_same_bits(task, tmp_path):
    recipe, trial = replace(RECIPE, log_points=1), a_trial(300)
    whole, _ = run(task, trial, recipe)
    keeper, source = Keeper(tmp_path / "kept", every_s=0.0), task.open()

    def work():
        train(task, source, trial, recipe, lambda point: None, keeper)

    delays, steps = np.random.default_rng(0), []
    for _ in range(20):
        child = in_a_process(work)
        time.sleep(0.02 + 0.1 * delays.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        steps.append(int(max((p.name for p in keeper.folder.glob("0*")), default="0")))
    assert steps == sorted(steps)  # what was reached is never lost
    assert steps[-1] > 0
    again = train(task, source, trial, recipe, lambda point: None, keeper)
    assert again.loss == whole.loss


def test_weights_are_kept_that_have_the_reported_loss(task, tmp_path):
    keeper = Keeper(tmp_path / "checkpoints", 1e9, tmp_path / "weights" / "a.safetensors")
    outcome = train(task, task.open(), a_trial(), RECIPE, lambda point: None, keeper)
    assert weights.read_note(keeper.weights).loss == outcome.loss
    model = task.build(8)
    model.load_state_dict(weights.read(keeper.weights))
    (batch,) = task.open().held_out_batches(1000, RECIPE.eval_examples)
    with torch.no_grad():
        assert task.loss(model.eval(), batch).item() == pytest.approx(outcome.loss, rel=1e-5)


def test_weights_that_cannot_be_written_do_not_lose_the_trial(task, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    keeper = Keeper(tmp_path / "checkpoints", 1e9, tmp_path / "file" / "a" / "b.safetensors")
    outcome = train(task, task.open(), a_trial(), RECIPE, lambda point: None, keeper)
    assert outcome.loss > 0
    assert "the weights of size 8 are not kept" in caplog.text

"""The code of README and docs runs as it stands, on a small model and small budgets."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import TensorDataset

import flops_fit
from flops_fit.cli import main, options
from flops_fit.cli.settings import read
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.sweep.execution import worker
from flops_fit.sweep.forecast import estimate, precision, suggestion
from flops_fit.sweep.forecast.calibration import Calibration
from flops_fit.sweep.training.train import Outcome

LAW = ParametricLaw(E=1.0, A=66.0, B=100.0, alpha=0.35, beta=0.30)
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND_LINE = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
(SWEEP_FILE,) = re.findall(r"```yaml\n(.*?)```", COMMAND_LINE, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", README + COMMAND_LINE, re.DOTALL)
    for line in block.splitlines()
]


class SmallGPT(nn.Module):
    """Takes the README's arguments."""

    def __init__(self, d_model: int, n_layer: int) -> None:
        super().__init__()
        hidden = [nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU()) for _ in range(n_layer)]
        self.layers = nn.Sequential(nn.Linear(4, d_model), *hidden, nn.Linear(d_model, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


@pytest.fixture
def elsewhere(store, monkeypatch):
    """A working directory with an empty store in its default place."""
    store.rename(store.parent / "mlruns")
    monkeypatch.chdir(store.parent)
    return store.parent


def draw_from_law(task, source, trial, recipe, report, keeper, stop):
    """In place of training, so that the small data carry a law."""
    loss = float(LAW.loss(trial.num_params, trial.num_tokens))
    return Outcome(loss, loss, trial.flops, 0.5, 100.0, 1.0, "cpu")


def machine(task, source, trials, recipe, processes, rounds=1):
    """In place of timing this machine: half a millisecond a step, and ten billion FLOP/s."""
    columns = [
        {
            "flops_per_token": trial.flops_per_token,
            "batch_size": trial.batch_size,
            "num_params": trial.num_params,
            "round": turn,
            "seconds_per_step": 5e-4
            + trial.flops_per_token * trial.batch_size * source.tokens_per_example / 1e10,
            "start_s": 0.1,
            "held_out_s": 0.1,
            "state_bytes": 16.0 * trial.num_params,
            "work_bytes": 1e6,
        }
        for trial in trials
        for turn in range(rounds)
    ]
    return Calibration(pd.DataFrame(columns), "a machine", 0.0, "estimated")


@pytest.fixture
def quick(monkeypatch):
    """Trials draw from a law, the machine is known, and little is simulated."""
    monkeypatch.setattr(worker, "train", draw_from_law)
    monkeypatch.setattr(suggestion, "calibrate", machine)
    monkeypatch.setattr(estimate, "calibrate", machine)
    monkeypatch.setattr(suggestion, "SWEEPS", 2)
    monkeypatch.setattr(precision, "SWEEPS", 2)


def given():
    """What the README's user brings."""
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    return {
        "GPT": SmallGPT,
        "train_set": TensorDataset(x, (x[:, 0] > 0).long()),
        "next_token_loss": nn.functional.cross_entropy,
        "flops_fit": flops_fit,
    }


def changed(block, changes):
    """A block with some of its text replaced, all of which it must hold."""
    for old, new in changes.items():
        assert old in block
        block = block.replace(old, new)
    return block


RECIPE = "recipe=flops_fit.Recipe(max_epochs=1e9, pilot=False)"


def test_the_five_lines(elsewhere, quick):
    names = given()
    budgets = f"[1e8, 1e9, 1e10], {RECIPE}"
    exec(changed(BLOCKS[1], {'"30 min"': budgets, "1e13": "1e12"}), names)
    predicted = names["result"].predict(1e12)
    assert predicted.loss == pytest.approx(LAW.loss(predicted.num_params, predicted.num_tokens))


@pytest.mark.slow
def test_before_you_spend(quick, capsys):
    block = changed(
        BLOCKS[2],
        {
            "hours=2": f"hours=2, sizes=[16, 64, 256], {RECIPE}",
            "[2e10, 8e10, 3e11, 1e12]": f"[1e8, 1e9, 1e10], {RECIPE}",
        },
    )
    exec(block, given())
    assert_in_order(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_blocks_run_as_written(elsewhere, quick, capsys):
    names = {}
    for block in BLOCKS[:3]:
        exec(block, names)
    assert_in_order(capsys.readouterr().out)
    result = names["result"]
    assert len(set(result.runs["compute_budget"])) >= 4
    predicted = result.predict(1e13)
    low, high = predicted.num_params_interval
    assert low < predicted.num_params < high < 100 * low


def assert_in_order(printed):
    words = ("BudgetSuggestion: ", "SweepPlan: ", "Estimate: ", "Precision: ", "Figure(")
    starts = [printed.index(word) for word in words]
    assert starts == sorted(starts)


def test_a_table_of_ones_own(elsewhere, capsys):
    runs = simulate_isoflop(LAW, [1e18, 1e19, 1e20])
    runs.to_csv("my_runs.csv", index=False)
    exec(BLOCKS[3], {})
    assert "N_opt ~ C^0.462" in capsys.readouterr().out


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[:1] == ["flops-fit"]])
def test_the_command_lines_are_understood(elsewhere, words):
    Path("sweep.yaml").write_text(SWEEP_FILE, encoding="utf-8")
    given = main.commands[words[1]].make_context(words[1], words[2:]).params
    given = {key: value for key, value in given.items() if key not in ("yes", "as_json")}
    if file := given.pop("config", None):
        settings = read(file, options.given(given))
        assert settings.model_cls == "my_project.models:GPT"
        asked = settings.hours or settings.compute_budgets
        assert asked in (2, [1e14, 5e14, 2e15, 1e16])
        assert settings.request().recipe.schedule == "cosine"


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[:2] == ["mlflow", "run"]])
def test_the_entry_points_take_what_is_given(words):
    points = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    point = words[words.index("-e") + 1] if "-e" in words else "main"
    given = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-P"]
    assert given
    assert set(given) <= set(points["entry_points"][point]["parameters"])

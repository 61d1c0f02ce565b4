"""The code of README and docs runs as it stands, on a small model and small budgets."""

import re
import shlex
from pathlib import Path

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
from flops_fit.sweep.forecast import precision
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


def given():
    """What the README's user brings."""
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    return {
        "GPT": SmallGPT,
        "train_set": TensorDataset(x, (x[:, 0] > 0).long()),
        "cross_entropy": nn.functional.cross_entropy,
        "flops_fit": flops_fit,
    }


def test_the_five_lines(elsewhere, monkeypatch):
    monkeypatch.setattr(worker, "train", draw_from_law)
    names = given()
    block = BLOCKS[0].replace("[1e14, 5e14, 2e15, 1e16]", "[1e8, 1e9, 1e10]")
    assert block != BLOCKS[0]
    block = block.replace(
        "loss_fn=", "recipe=flops_fit.Recipe(max_epochs=1e9, pilot=False), loss_fn="
    )
    exec(block.replace("1e19", "1e12"), names)
    predicted = names["result"].predict(1e12)
    assert predicted.loss == pytest.approx(LAW.loss(predicted.num_params, predicted.num_tokens))


def test_before_you_spend(monkeypatch, capsys):
    monkeypatch.setattr(precision, "SWEEPS", 2)
    block = BLOCKS[1].replace("[1e14, 5e14, 2e15, 1e16]", "[1e8, 1e9, 1e10], recipe=recipe")
    block = block.replace("devices=8", "devices=8, flops_per_second=1e9")
    exec(block, {**given(), "recipe": flops_fit.Recipe(max_epochs=1e9, pilot=False)})
    printed = capsys.readouterr().out
    starts = [printed.index(word) for word in ("Estimate: ", "Precision: ", "Figure(")]
    assert starts == sorted(starts)


def test_a_table_of_ones_own(elsewhere, capsys):
    runs = simulate_isoflop(LAW, [1e18, 1e19, 1e20])
    runs.to_csv("my_runs.csv", index=False)
    exec(BLOCKS[2], {})
    assert "N_opt ~ C^0.462" in capsys.readouterr().out


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[:1] == ["flops-fit"]])
def test_the_command_lines_are_understood(elsewhere, words):
    Path("sweep.yaml").write_text(SWEEP_FILE, encoding="utf-8")
    given = main.commands[words[1]].make_context(words[1], words[2:]).params
    given = {key: value for key, value in given.items() if key not in ("yes", "as_json")}
    if file := given.pop("config", None):
        settings = read(file, options.given(given))
        assert settings.model_cls == "my_project.models:GPT"
        assert settings.compute_budgets == [1e14, 5e14, 2e15, 1e16]
        assert settings.request().recipe.schedule == "cosine"


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[:2] == ["mlflow", "run"]])
def test_the_entry_points_take_what_is_given(words):
    points = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    point = words[words.index("-e") + 1] if "-e" in words else "main"
    given = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-P"]
    assert given
    assert set(given) <= set(points["entry_points"][point]["parameters"])

"""Every script of `examples/` runs for real: a sweep of its own, of the smallest models."""

from __future__ import annotations

import io
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flops_fit import tracking
from flops_fit.store.client import client_of

SCRIPTS = Path(__file__).parents[2] / "examples"
TEXT = "--budgets 2e8 4e8 --sizes 2 4 6 --batch 4 --eval-examples 16".split()
ALONE = [*TEXT, "--lr", "deepseek", "--workers", "1"]
IMAGES = "--sizes 1 2 3 --lr 0.01 --batch 16 --eval-examples 64 --workers 1".split()
DONE = ["complete"] * 6


def main_of(script: str):
    return runpy.run_path(str(SCRIPTS / script), run_name="example")["main"]


@pytest.fixture(autouse=True)
def elsewhere(store, monkeypatch):
    """A working directory with an empty store in its default place."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store.rename(store.parent / "mlruns")
    monkeypatch.chdir(store.parent)
    return store.parent


def metrics_of(name: str) -> list[dict[str, float]]:
    ledger = tracking.find_ledger(name)
    runs = client_of(ledger.tracking_uri).search_runs([ledger.experiment_id])
    return [run.data.metrics for run in runs if tracking.TRIAL_ID in run.data.tags]


def stories(folder: Path, suffix: str) -> None:
    for name, count in (("train-00000-of-00001-ab", 3000), ("validation-00000-of-00001-cd", 300)):
        texts = pd.DataFrame({"text": [f"Once upon a time {k} cats slept." for k in range(count)]})
        if suffix == ".parquet":
            texts.to_parquet(folder / f"{name}.parquet")
        else:
            (folder / f"{name}.txt").write_text("\n".join(texts["text"]), encoding="utf-8")


def pictures(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for name, count in (("train", 200), ("test", 64)):
        rows = []
        for k in range(count):
            png = io.BytesIO()
            pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(png, "PNG")
            rows.append({"img": {"bytes": png.getvalue(), "path": None}, "label": k % 10})
        pd.DataFrame(rows).to_parquet(folder / f"{name}-00000-of-00001.parquet")


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::flops_fit.FlopsFitWarning")
def test_the_five_lines_then_their_recipe_trains_nothing_more(capsys, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    options = "--budgets 4e9 8e9 1.6e10 --sizes 1 2 4 7 --workers 2".split()
    result = main_of("feedforward_stdlib.py")(options)
    runs = result.runs.groupby("role")["state"].agg(list)
    assert runs["sweep"] == ["complete"] * 12
    assert len(runs["pilot"]) >= 12  # learning rates at three sizes
    assert "mlflow ui" in capsys.readouterr().err
    again = main_of("found_recipe.py")(options)
    assert set(result.runs["run_id"]) == set(again.runs["run_id"])
    assert "Laws of the recipe" in capsys.readouterr().out
    assert Path("recipe.png").stat().st_size > 10_000


@pytest.mark.integration
def test_a_gpt_on_the_text_of_the_five_lines():
    assert list(main_of("gpt_stdlib.py")(ALONE).runs["state"]) == DONE


@pytest.mark.integration
def test_tinystories_from_local_files(tmp_path):
    stories(tmp_path, ".parquet")
    result = main_of("gpt_tinystories.py")(
        [*ALONE, "--data", str(tmp_path), "--context", "32", "--batch", "16"]
    )
    assert list(result.runs["state"]) == DONE
    assert len(list((tmp_path / "data").glob("tinystories-*.bin"))) == 2


@pytest.mark.slow
def test_a_vision_transformer_on_drawn_shapes_and_its_accuracy(capsys):
    budgets = ["--budgets", "1e7", "2e7"]
    result = main_of("vit_cifar.py")([*IMAGES, *budgets, "--data", "synthetic"])
    assert list(result.runs["state"]) == DONE
    assert result.meta["data_unit"] == "examples"
    shares = [metrics["eval_accuracy"] for metrics in metrics_of("vit-synthetic")]
    assert len(shares) == 6
    assert all(0 <= share <= 1 for share in shares)
    assert "Most accurate at each budget" in capsys.readouterr().out


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::flops_fit.FlopsFitWarning")  # so few images are repeated
def test_a_vision_transformer_on_files_of_cifar10(tmp_path):
    pictures(tmp_path)
    budgets = ["--budgets", "2e7", "3e7"]
    result = main_of("vit_cifar.py")([*IMAGES, *budgets, "--batch", "4", "--data", str(tmp_path)])
    assert list(result.runs["state"]) == DONE
    assert all("eval_accuracy" in metrics for metrics in metrics_of("vit-cifar10"))


@pytest.mark.slow
def test_a_convolutional_net_shows_what_it_costs(capsys):
    result = main_of("resnet_images.py")([*IMAGES, "--budgets", "1e8", "2e8"])
    assert list(result.runs["state"]) == DONE
    table = capsys.readouterr().out.partition("ratio to 6 N:\n")[2].splitlines()
    assert table[0].split() == ["size", "num_params", "flops_per_image", "times_6N"]
    N, flops, times = map(float, table[-1].split()[1:])
    assert times == pytest.approx(flops / (6 * N), rel=0.01)
    assert times > 100


@pytest.mark.integration
def test_a_model_of_transformers(capfd):
    result = main_of("hf_model.py")(ALONE)
    assert "loss_type" not in capfd.readouterr().err
    assert list(result.runs["state"]) == DONE
    assert result.meta["flops_convention"] == "measured"


def test_runs_of_ones_own(capsys):
    result = main_of("bring_your_own_runs.py")([])
    assert len(result.runs) == 28
    assert "tokens per parameter" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main_of("bring_your_own_runs.py")(["--help"])
    with pytest.raises(SystemExit, match=r"no such file: missing\.csv"):
        main_of("bring_your_own_runs.py")(["missing.csv"])


def test_options_tell_a_scripts_own_defaults_and_what_they_expect(capsys):
    main = main_of("multi_gpu.py")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "default: 1" in said
    with pytest.raises(SystemExit, match="2"):
        main(["--workers", "many"])
    assert "--workers: expected a whole number or 'auto', got 'many'" in capsys.readouterr().err


@pytest.mark.integration
def test_two_processes_train_each_trial_together(elsewhere, start, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with open(tmp_path / "printed", "w") as printed:
        process = start(
            *launcher, SCRIPTS / "multi_gpu.py", *TEXT,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=printed,
        )  # fmt: skip
        output = process.finish()
    assert process.returncode == 0, output
    assert (tmp_path / "printed").read_text().count("Result 'gpt-data-parallel': 6 runs") == 1
    assert "2 processes train each trial together" in output


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_a_cluster_of_this_machines_own():
    result = main_of("cluster.py")(ALONE)
    assert list(result.runs["state"]) == DONE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::flops_fit.FlopsFitWarning")  # too few steps for a pilot
def test_a_command_line_of_ones_own(capsys):
    main = main_of("cli_wrapper.py")
    options = "--budgets 2e8 4e8 --sizes 2 4 6 --batch 4 --layers 1".split()
    assert main(["plan", *options]) == 0
    assert "SweepPlan: 6 trials of" in capsys.readouterr().out
    assert main(["run", *options]) == 0
    assert "Result 'gpt-1-layers': 6 runs" in capsys.readouterr().out
    assert main(["predict", "1e12"]) == 1
    assert "no sweep named 'gpt-2-layers'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["run"])
    assert "--budgets" in capsys.readouterr().err

"""Every command, on a planted law in place of training."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from tables import isoflop_table

import flops_fit
from flops_fit import tracking
from flops_fit.cli import main, options, sweeps
from flops_fit.cli.servers import mlflow_server, ui
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.report import html_page
from flops_fit.runtime import polling
from flops_fit.sweep.execution import status, worker
from flops_fit.sweep.training.train import Outcome

LAW = ParametricLaw(E=1.0, A=66.0, B=100.0, alpha=0.35, beta=0.30)
COMMANDS = (
    "demo", "plan", "run", "worker", "fit", "suggest", "analyze", "predict", "forecast",
    "score", "compare", "report", "ui", "server",
)  # fmt: skip
TASK = [
    "--model-cls=tiny_task:Net", "--model-size-param=width", "--dataset=tiny_task:data",
    "--loss-fn=torch.nn.functional:cross_entropy", "--compute-budgets=1e10,3e10,1e11",
    "--sizes=500,1000,2000,4000,8000", "--recipe", "max_epochs=1e9",
    "--recipe", "pilot=false",
]  # fmt: skip


def draw_from_law(task, source, trial, recipe, report, keeper=None, stop=None):
    loss = float(LAW.loss(trial.num_params, trial.num_tokens))
    seconds = 1e-6 * trial.num_tokens + trial.flops / 1e10
    measures = {"accuracy": 1 - 0.2 * (loss - LAW.E)}
    return Outcome(loss, loss, trial.flops, seconds, 100.0, 1.0, "cpu", measures)


def call(*words: object):
    return CliRunner().invoke(main, list(map(str, words)))


def where(store: Path, name: str = "tiny") -> list[str]:
    return ["--name", name, "--tracking-uri", f"sqlite:///{store}/mlflow.db"]


def not_a_number(constant: str):
    raise ValueError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def swept(empty_store, tmp_path_factory):
    """The store of a sweep that `run` made, and what it printed."""
    store = Path(shutil.copytree(empty_store, tmp_path_factory.mktemp("swept") / "store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "train", draw_from_law)
        patch.setattr("flops_fit.analysis._write_report", lambda result, folder: None)
        return store, call("run", *TASK, *where(store))


@pytest.fixture
def finished(swept, tmp_path) -> Path:
    """A copy of that store."""
    return Path(shutil.copytree(swept[0], tmp_path / "finished"))


def test_help_names_all_commands_and_loads_nothing_heavy():
    heavy = ("torch", "mlflow", "optuna", "scipy", "pandas", "numpy", "yaml")
    code = (
        "import sys, flops_fit.cli as cli\n"
        "try: cli.main(['--help'])\n"
        f"except SystemExit: print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert [name for name in COMMANDS if f"\n  {name} " not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name):
    done = call(name, "--help")
    assert done.exit_code == 0
    assert f"\n    flops-fit {name}" in done.stdout
    assert "--traceback" in done.stdout


def test_run_shows_plan_table_and_how_to_help(swept):
    _, done = swept
    assert done.exit_code == 0, done.stderr
    assert "N_opt ~ C^0.46" in done.stdout
    assert re.search(r"C, FLOPs +N, parameters +N, 95 % .* width ", done.stdout)
    assert "workflowType=machine_learning" in done.stderr
    assert "SweepPlan: 15 trials" in done.stderr
    assert "another terminal: flops-fit worker --model-cls tiny_task:Net" in done.stderr
    assert "--recipe max_epochs=1000000000.0 --recipe pilot=false --name tiny" in done.stderr


@pytest.mark.filterwarnings("ignore:the store of the sweep")
def test_run_again_asks_and_trains_nothing(finished, monkeypatch):
    monkeypatch.setattr(worker, "train", None)
    monkeypatch.setattr(sweeps, "ASK_ABOVE_ON_CPU", 0.0)
    monkeypatch.setattr(sweeps, "ASK_ABOVE_ON_GPU", 0.0)
    done = call("run", *TASK, *where(finished))
    assert done.exit_code == 0
    assert "trials have ended; nothing is left" in done.stderr


def test_the_command_of_a_worker_has_the_options_given_but_no_passwords():
    given = {
        "model_cls": "my.models:GPT",
        "model_kwargs": (("n_layer", 4), ("tied", True), ("api_key", "canary"), ("secret", 7)),
        "dataset_kwargs": (("tokenizer", "gpt2"), ("HF_TOKEN", "canary"), ("key_dim", 8)),
        "compute_budgets": "1e15,1e16",
        "storage": "postgresql://user:secret@host/optuna",
        "workers": "auto",
        "workers_per_device": 4,
        "retry_failed": True,
        "on_code_change": "rerun",
        "extend": False,
        "sizes": "",
    }
    assert options.worker_command(given, "my net") == (
        "flops-fit worker --model-cls my.models:GPT --model-kwargs n_layer=4 "
        "--model-kwargs tied=true --model-kwargs 'api_key=***' --model-kwargs 'secret=***' "
        "--dataset-kwargs tokenizer=gpt2 --dataset-kwargs 'HF_TOKEN=***' "
        "--dataset-kwargs key_dim=8 --compute-budgets 1e15,1e16 "
        "--storage postgresql://host/optuna --name 'my net'"
    )


def test_plan_prints_json_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("plan", *TASK, "--json")
    printed = json.loads(done.stdout, parse_constant=not_a_number)
    assert printed["size_param"] == "width"
    assert printed["total_flops"] == sum(trial["flops"] for trial in printed["trials"])
    assert "the user's own words" in done.stderr  # what the model prints
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("default::flops_fit.FlopsFitWarning")
def test_plan_of_a_name_shows_what_is_done_or_why_that_is_not_known(finished):
    done = call("plan", *TASK, *where(finished))
    assert "; 15 done, 0 FLOPs left" in done.stdout
    away = call("plan", *TASK, "--name", "tiny", "--tracking-uri", "http://127.0.0.1:9")
    assert away.exit_code == 0
    assert "SweepPlan: 15 trials" in away.stdout
    assert "done" not in away.stdout
    assert "warning: which trials are done already is not known: the MLflow server" in away.stderr
    refused = call("run", *TASK, "--name", "tiny", "--tracking-uri", "http://127.0.0.1:9")
    assert refused.exit_code == 1
    assert "\nError: the MLflow server http://127.0.0.1:9 does not answer" in refused.stderr


@pytest.mark.filterwarnings("ignore:the store of the sweep")
def test_analyze_prints_json_alone(finished):
    done = call("analyze", *where(finished), "--json")
    printed = json.loads(done.stdout, parse_constant=not_a_number)
    assert printed["law"]["alpha"] == pytest.approx(LAW.alpha, rel=1e-3)
    assert printed["name"] == "tiny"
    assert {row["state"] for row in printed["runs"]} == {"complete"}
    assert printed["table"][0]["compute_budget"] == 1e10


@pytest.mark.slow
def test_fit_reads_a_file_and_fits_each_value_apart(tmp_path):
    path = tmp_path / "runs.csv"
    both = [isoflop_table(i).assign(data=name) for i, name in enumerate("ab")]
    pd.concat(both).to_csv(path, sep=";", index=False)
    shown = json.loads(call("fit", path, "--json").stdout, parse_constant=not_a_number)
    assert shown["law"]["a"] == flops_fit.fit(path).law.a
    shown = json.loads(call("fit", path, "--by", "data", "--json").stdout)
    assert list(shown["results"]) == ["a", "b"]
    printed = call("fit", path, "--by", "data").stdout
    assert printed.startswith("Results by data: 2 fitted, 0 not")
    bent = json.loads(call("fit", path, "--form", "bent", "--json").stdout)
    assert bent["law"]["gamma"] != 1 == shown["results"]["a"]["law"]["gamma"]
    assert call("fit", path, "--form", "round").exit_code == 2
    assert call("fit", path, "--by", "corpus").exit_code == 2
    assert call("fit", tmp_path / "none.csv").exit_code == 2


def test_fit_of_too_few_runs_prints_why_and_exits_with_1(tmp_path):
    path = tmp_path / "runs.csv"
    isoflop_table(0)[:3].to_csv(path, index=False)
    done = call("fit", path)
    assert done.exit_code == 1
    assert "refuse" in done.stdout


def test_predict_answers_without_the_model_and_writes_nothing(finished, monkeypatch):
    monkeypatch.setattr(tracking, "log_analysis", None)
    shown = call("predict", "1e12", *where(finished))
    assert shown.exit_code == 0, shown.stderr
    assert "loss" in shown.stdout
    done = call("predict", "1e12", *where(finished), "--json", "--tokens-per-param", 20)
    printed = json.loads(done.stdout, parse_constant=not_a_number)
    assert printed["tokens_per_param"] == pytest.approx(20)
    assert printed["loss"] == pytest.approx(
        LAW.loss(printed["num_params"], printed["num_tokens"]), rel=1e-3
    )


def test_predict_tells_a_metric(finished):
    words = ("predict", "1e12", *where(finished), "--metric", "accuracy")
    printed = json.loads(call(*words, "--json").stdout, parse_constant=not_a_number)
    expected = 1 - 0.2 * (printed["loss"] - LAW.E)
    assert printed["metric"]["name"] == "accuracy"
    assert printed["metric"]["value"] == pytest.approx(expected, abs=0.01)
    assert "  accuracy " in call(*words).stdout
    unknown = call("predict", "1e12", *where(finished), "--metric", "acc")
    assert unknown.exit_code == 2
    assert "got 'acc': accuracy" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "head"),
    [
        (["--hours", "0.05"], "3 min on 1 device: "),
        (["--hours", "0.05", "--devices", "2"], "3 min on 2 devices: "),
        (
            ["--price", "1", "--price-per-hour", "10", "--devices", "2"],
            "3 min on 2 devices for 1: ",
        ),
    ],
)
def test_predict_for_hours_and_for_money(finished, words, head):
    shown = call("predict", *where(finished), *words)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.startswith(head)
    printed = call("predict", *where(finished), *words, "--json").stdout
    assert json.loads(printed, parse_constant=not_a_number)["spending"]["hours"] == 0.05


def test_predict_tells_the_loss_of_models(finished):
    words = ("predict", *where(finished), "--params", "20k,5e4", "--tokens", "1e6")
    shown = call(*words)
    assert shown.exit_code == 0, shown.stderr
    heading, *rows = shown.stdout.splitlines()
    assert all(name in heading for name in ("N, parameters", "D, examples", "one run, 95 %"))
    assert [row.split()[:2] for row in rows[:2]] == [["20.0k", "1.00M"], ["50.0k", "1.00M"]]
    printed = json.loads(call(*words, "--json").stdout, parse_constant=not_a_number)
    assert [row["num_params"] for row in printed["losses"]] == [2e4, 5e4]
    assert printed["losses"][0]["loss"] == pytest.approx(LAW.loss(2e4, 1e6), rel=1e-3)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "give a compute budget, --hours or --price, or --params and --tokens"),
        (["1e12", "--params", "1M", "--tokens", "1M"], "give a compute budget, --hours or"),
        (["--params", "1M"], "give --params and --tokens together"),
        (["--price", "3", "--devices", "0"], "--price-per-hour: expected the price of one device"),
        (["--params", "1M,x", "--tokens", "1M"], "expected positive numbers"),
        (["--params", "1M,2M", "--tokens", "1M,2M,3M"], "expected shapes that broadcast"),
        (
            ["--params", "1M", "--tokens", "1M", "--tokens-per-param", "2"],
            "--tokens-per-param goes with a compute budget only",
        ),
    ],
)
def test_predict_says_what_it_needs(finished, words, problem):
    done = call("predict", *where(finished), *words)
    assert done.exit_code == 2
    assert problem in done.stderr


def test_forecasts_are_written_and_scored(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note = "first " + "a" * 200
    words = ("forecast", *where(finished), "--note", note)
    assert "times the largest budget" in call(*words, "1e13").stdout
    done = call(*words, "--params", "50k,100k", "--tokens", "2e7")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("Forecast ") == 2
    assert len(list(Path("forecasts").iterdir())) == 3
    made = (json.loads(path.read_text()) for path in Path("forecasts").iterdir())
    (loss,) = (one["loss"] for one in made if one["num_params"] == 50e3)
    for inside, came in ((1, loss), (0, 2 * loss)):
        Path("runs.csv").write_text(f"N,D,loss\n50k,2e7,{came}\n")
        shown = call("score", "forecasts", "--runs", "runs.csv")
        assert shown.exit_code == 0, shown.stderr
        assert shown.stdout.splitlines()[-1].startswith(f"Forecasts: {inside} of 1 inside")
    assert max(map(len, shown.stdout.splitlines())) < 320
    assert shown.stdout.count("not yet run") == 3  # two rows, and the summary
    printed = call("score", "forecasts", "--json", *where(finished)).stdout
    scores = json.loads(printed, parse_constant=not_a_number)
    assert scores["summary"] == "Forecasts: 3 not yet run"
    assert [row["note"] for row in scores["forecasts"]] == [note] * 3
    assert scores["checks"] == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["score", "none.json", "--loss", "2"], "none.json cannot be read"),
        (["score", "none.json"], "give one of --runs, --name, --loss"),
        (["score", "none.json", "--loss", "2", "--name", "tiny"], "give one of --runs"),
        (["forecast", "--name", "tiny"], "give a compute budget, or --params and --tokens"),
    ],
)
def test_forecasts_say_what_they_need(tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert done.exit_code == 2
    assert problem in done.stderr


def test_report_writes_a_page(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(html_page, "figures", lambda findings: {})  # both take seconds
    monkeypatch.setattr(html_page, "_grid", lambda findings: None)
    done = call("report", *where(finished))
    assert (done.exit_code, done.stdout) == (0, "tiny.html\n"), done.stderr
    assert "<html" in Path("tiny.html").read_text(encoding="utf-8")
    nowhere = call("report", *where(finished), "--output", "no/tiny.html")
    assert nowhere.exit_code == 2
    assert nowhere.stderr.startswith("Error: --output: the folder no ")


@pytest.mark.slow
def test_compare_prints_the_verdict_and_logs_the_page(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = where(finished)[2:]
    words = ("--budgets", "3e10,1e11", "--output", "own.html", "--json")
    done = call("compare", "tiny", "tiny", *store, *words)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["names"] == ["tiny (1)", "tiny (2)"]
    assert [row["compute_budget"] for row in shown["table"]] == [3e10, 1e11]
    assert all(row["multiplier"] == pytest.approx(1.0) for row in shown["table"])
    assert Path("own.html").read_text() == Path(shown["pages"][0]).read_text()
    alone = call("compare", "tiny", *store)
    assert alone.exit_code == 2
    assert "expected the names of two sweeps" in alone.output


@pytest.mark.parametrize("words", [["analyze"], ["predict", "1e12"], ["report"], ["ui"]])
def test_an_unknown_name_is_reported_with_the_known_ones(finished, words):
    done = call(*words, *where(finished, "tyni"))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: no sweep named 'tyni' in sqlite:///")
    assert done.stderr.endswith("it holds: tiny\n")


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    done = call("ui", "--tracking-uri", f"sqlite:///{tmp_path}/no/mlflow.db")
    assert done.exit_code == 1
    assert "no store at" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_wrong_path_and_a_missing_file_are_usage_errors():
    for option in ("--model-cls", "--model"):
        done = call("run", *TASK, option, "tiny_task:Nett")
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == "Error: --model-cls: tiny_task has no Nett; did you mean Net?\n"
    assert call("run", "--config", "no.yaml").exit_code == 2
    assert call("run", *TASK, "--model-kwargs", "dropout").exit_code == 2


def test_failed_trials_of_the_plan_end_in_1(finished, monkeypatch):
    runs = tracking.fetch_runs(tracking.find_ledger("tiny", f"sqlite:///{finished}/mlflow.db"))
    frame = tracking.runs_frame(runs)
    findings = SimpleNamespace(not_beyond=[])
    result = SimpleNamespace(runs=frame, law="a law", findings=findings)
    monkeypatch.setattr(sweeps, "run_and_analyze", lambda *_, **__: result)
    monkeypatch.setattr(sweeps, "show", lambda result: None)
    frame.loc[0, "state"] = "diverged"  # an answer, if not a welcome one
    assert call("run", *TASK, *where(finished)).exit_code == 0
    frame.loc[1, "state"] = "failed"
    assert call("run", *TASK, *where(finished)).exit_code == 1
    frame.loc[1, "compute_budget"] = 9e9  # of an earlier plan
    assert call("run", *TASK, *where(finished)).exit_code == 0


def test_a_large_sweep_needs_a_yes(store, monkeypatch):
    monkeypatch.setattr(sweeps, "ASK_ABOVE_ON_CPU", 1.0)
    monkeypatch.setattr(sweeps, "ASK_ABOVE_ON_GPU", 1.0)
    monkeypatch.setattr(sweeps, "open_job", None)
    refused = call("run", *TASK, *where(store))
    assert refused.exit_code == 2
    assert re.search(r"\d FLOPs, more than .*pass --yes", refused.stderr)
    monkeypatch.setattr(sweeps, "can_ask", lambda: True)
    done = CliRunner().invoke(main, ["run", *TASK, *where(store)], input="n\n")
    assert done.exit_code == 1
    assert "Nothing was trained" in done.stderr


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_a_worker_takes_over(store, monkeypatch):
    trained = []

    def interrupted(task, source, trial, recipe, report, keeper=None, stop=None):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(trial.trial_id)
        return draw_from_law(task, source, trial, recipe, report)

    monkeypatch.setattr(worker, "train", interrupted)
    stopped = call("run", *TASK, *where(store))
    assert stopped.exit_code == 130
    last = stopped.stderr.splitlines()[-1]
    assert last.startswith("Stopped: 3 of ")
    assert last.endswith("Run the same again to continue")
    assert "Traceback" not in stopped.stderr
    trained.append("of the worker from here on")
    monkeypatch.setattr(status, "BEGIN_S", 0)

    other = call("worker", *TASK, *where(store), "--compute-budgets", "1e10,1e11")
    assert other.exit_code == 2
    assert "runs another plan" in other.stderr
    assert "budgets, sizes, seed or learning rates differ" in other.stderr
    other = call("worker", *TASK, *where(store), "--recipe", "warmup=0.2")
    assert other.exit_code == 2
    assert "recipe: warmup=0.1 there, warmup=0.2 here" in other.stderr

    helped = call("worker", *TASK, *where(store))
    assert helped.exit_code == 0
    assert "Nothing waits in the sweep 'tiny'" in helped.stderr
    runs = tracking.fetch_all_runs(tracking.find_ledger("tiny", f"sqlite:///{store}/mlflow.db"))
    complete = [run.trial_id for run in runs if run.state == "complete"]
    assert len(complete) == len(set(complete)) > 10
    again = call("worker", *TASK, *where(store))
    assert "Nothing waits" in again.stderr


def test_a_worker_waits_for_a_driver_that_begins_after_it(swept, tmp_path, monkeypatch):
    begun = []

    def pass_time(seconds):
        begun.append(shutil.copytree(swept[0], tmp_path / "late"))

    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=pass_time)
    monkeypatch.setattr(polling, "time", clock)
    helped = call("worker", *TASK, *where(tmp_path / "late"))
    assert helped.exit_code == 0, helped.stderr
    assert "Waiting 10 s for the sweep to begin\n" in helped.stderr
    assert "Nothing waits in the sweep 'tiny': 15 of 15 trials are done" in helped.stderr
    assert len(begun) == 1


def test_a_worker_makes_no_study_of_its_own(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "BEGIN_S", 0)
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    done = call("worker", *TASK, *where(finished), "--storage", elsewhere)
    assert done.exit_code == 1
    assert re.search(f"{elsewhere} .*'tiny'.*storage", done.stderr)
    assert not (tmp_path / "other.db").exists()


@pytest.mark.slow
def test_the_demo_is_the_first_example(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import feedforward_stdlib

    asked = []

    def stop(**arguments):
        asked.append(arguments)
        raise flops_fit.FlopsFitError("as far as it goes")

    monkeypatch.setattr(flops_fit, "find_optimal", stop)
    with pytest.raises(flops_fit.FlopsFitError):
        feedforward_stdlib.main([])
    assert call("demo").exit_code == 1
    example, demo = asked
    assert demo.pop("tracking_uri") is None
    assert example.pop("sizes") is None
    for part in ("dataset", "eval_dataset"):
        one, other = example.pop(part), demo.pop(part)
        assert type(one) is type(other)
        assert torch.equal(one[0][0], other[0][0])
        assert len(one) == len(other)
    assert demo == example


def test_ui_that_is_terminated_takes_mlflow_with_it(finished, monkeypatch):
    ended = []

    class Process:
        def wait(self):
            os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def served(*given):
        try:
            yield Process()
        finally:
            ended.append(given)

    monkeypatch.setattr(ui, "served", served)
    done = call("ui", *where(finished))
    assert done.exit_code == 143
    assert len(ended) == 1


def test_ui_says_when_mlflow_does_not_come_up_and_when_a_port_is_taken(finished, monkeypatch):
    ended = [sys.executable, "-c", "raise SystemExit(3)"]
    start = subprocess.Popen
    monkeypatch.setattr(mlflow_server.subprocess, "Popen", lambda _, **more: start(ended, **more))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = call("ui", *where(finished), "--port", taken.getsockname()[1])
        assert done.exit_code == 2
        assert f"is taken by process {os.getpid()} (" in done.stderr
        assert "--port" in done.stderr
        port = taken.getsockname()[1]
    done = call("ui", *where(finished), "--port", port)
    assert done.exit_code == 1
    assert "MLflow ended with exit code 3" in done.stderr


def test_links_open_the_page_that_shows_runs(finished):
    ledgers = tracking.list_ledgers(f"sqlite:///{finished}/mlflow.db")
    page = f"#/experiments/{ledgers[0].experiment_id}/runs?workflowType=machine_learning"
    first, hint = ui.links(ledgers, "http://host:5000/").splitlines()
    assert first == f"tiny: http://host:5000/{page}"
    assert "Model training" in hint
    many = ui.links(ledgers * 12, "http://host:5000")
    assert many.splitlines()[-2] == "and 2 more"

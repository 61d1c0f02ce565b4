"""Models that a sweep keeps: which are logged, and that none is lost on the way."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from sweeps import SMALL_BUDGETS, Net, SmallSweep

import flops_fit
from flops_fit.errors import ArgumentError, FlopsFitWarning, SweepError
from flops_fit.runtime import sending
from flops_fit.sweep.execution import executors, worker
from flops_fit.sweep.kept import weights
from flops_fit.tracking.ledger import Ledger
from flops_fit.tracking.logged_models import kept_models


def keeping(sweep: SmallSweep, keep: str | None = "best") -> SmallSweep:
    """The sweep, with models kept; its trials are the same."""
    plan = sweep.planned.plan
    recipe = replace(plan.recipe, keep_models=keep)
    sweep.planned = replace(sweep.planned, plan=replace(plan, recipe=recipe))
    return sweep


def model_of(trial_id: str, width: int) -> Net:
    """A model that stands for the trained one of a trial."""
    torch.manual_seed(int(trial_id, 16) % 2**31)
    return Net(width)


def write(sweep: SmallSweep, file: Path, trial) -> None:
    weights.write(file, model_of(trial.trial_id, trial.size), sweep.task, trial, 0.0)


@pytest.fixture
def trained(finished) -> SmallSweep:
    """A sweep whose trials have ended, with the weights of all of them beside the store."""
    put_all(keeping(finished, "all"))
    return keeping(finished)


def put_all(sweep: SmallSweep) -> None:
    job = sweep.open()
    for trial in job.trials:
        write(sweep, job.shelf.file_for(trial, job.code), trial)


def log(sweep: SmallSweep) -> None:
    """What a driver does at the end of a sweep."""
    job = sweep.open()
    job.shelf.log(sweep.runs(), job.trial_ids)


def best_of(sweep: SmallSweep) -> dict[float, str]:
    """The best trial of each budget."""
    runs = sorted(sweep.runs(), key=lambda run: -run.loss)
    return {run.compute_budget: run.trial_id for run in runs}


def files(sweep: SmallSweep) -> list[Path]:
    return sorted(sweep.folder.glob("weights/*/*.safetensors"))


def load(sweep: SmallSweep, budget: float) -> torch.nn.Module:
    return flops_fit.load_model(Net, budget, name="planted", tracking_uri=sweep.uri)


def assert_all_kept(sweep: SmallSweep) -> None:
    """The best model of each budget is in MLflow, and no weights lie about."""
    sizes = {run.trial_id: run.size for run in sweep.runs()}
    best = best_of(sweep)
    kept = [model for model in kept_models(sweep.ledger) if model.is_best]
    assert sorted(model.compute_budget for model in kept) == sorted(best)
    for budget, trial_id in best.items():
        state, expected = (
            model.state_dict()
            for model in (load(sweep, budget), model_of(trial_id, sizes[trial_id]))
        )
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in state)
    assert files(sweep) == []


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_keeps_the_best_and_drops_losers_on_the_way(
    small, planted, train_with, monkeypatch
):
    counts, begun = [], []

    def write_weights(trial, keeper):
        counts.append(len(files(small)))
        begun.append(trial.trial_id)
        if len(begun) == 6:
            raise KeyboardInterrupt
        write(small, keeper.weights, trial)

    def kill(*_):
        raise KeyboardInterrupt

    log_artifacts = MlflowClient.log_model_artifacts
    train_with(write_weights)
    with pytest.raises(KeyboardInterrupt):  # in mid-sweep
        keeping(small).run()
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", kill)
    with pytest.raises(KeyboardInterrupt):  # as models are logged
        small.run()
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", log_artifacts)
    assert len(files(small)) == len(SMALL_BUDGETS)
    small.run()
    assert max(counts) <= len(SMALL_BUDGETS)
    assert len(planted.trained) == 8
    assert_all_kept(small)
    client = MlflowClient(small.uri)
    models = client.search_logged_models([small.ledger.experiment_id])
    assert len(models) == len(SMALL_BUDGETS)  # the one that was left unfinished is gone
    for model in models:
        names = {item.path for item in client.list_logged_model_artifacts(model.model_id)}
        assert names == {"MLmodel", "README.md", "model.safetensors"}


def test_mlflow_shows_a_model_under_its_run_with_its_loss(trained):
    log(trained)
    runs = {run.trial_id: run for run in trained.runs()}
    client = MlflowClient(trained.uri)
    models = client.search_logged_models([trained.ledger.experiment_id])
    assert len(models) == len(SMALL_BUDGETS)
    for model in models:
        run = runs[model.tags["flops_fit.trial_id"]]
        assert (model.source_run_id, str(model.status)) == (run.run_id, "READY")
        assert model.name.startswith(f"width={run.size} C=")
        assert [(metric.key, metric.value) for metric in model.metrics] == [("loss", run.loss)]
        (output,) = client.get_run(run.run_id).outputs.model_outputs
        assert output.model_id == model.model_id
        assert len(client.get_metric_history(run.run_id, "loss")) == 1


def test_all_are_kept_if_asked_for_and_nothing_is_logged_twice(trained):
    log(keeping(trained, "all"))
    log(trained)
    run_ids = sorted(model.run_id for model in kept_models(trained.ledger))
    assert run_ids == sorted(run.run_id for run in trained.runs())
    assert_all_kept(trained)


@pytest.mark.parametrize("keep", ["best", None])
def test_what_could_not_be_logged_is_logged_by_the_next_call(trained, monkeypatch, keep):
    def fail(*_, **__):
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("flops_fit.tracking.logged_models.shutil.copytree", fail)
        with pytest.warns(FlopsFitWarning, match="stay in .* logged by the next call.*is full"):
            log(trained)
    assert kept_models(trained.ledger) == []
    log(keeping(trained, keep))
    assert_all_kept(trained)


def test_a_better_model_of_a_budget_is_marked_and_the_former_one_stays(trained):
    job = trained.open()
    best = best_of(trained)
    job.shelf.log([run for run in trained.runs() if run.trial_id not in best.values()], ())
    former = {model.run_id for model in kept_models(trained.ledger) if model.is_best}
    put_all(keeping(trained, "all"))
    log(keeping(trained))
    assert_all_kept(trained)
    now = {model.run_id: model.is_best for model in kept_models(trained.ledger)}
    assert len(former) == len(SMALL_BUDGETS)
    assert {now[run_id] for run_id in former} == {False}


def test_a_sweep_begun_without_goes_on_and_says_what_is_not_there(finished, planted):
    assert "keep_models" not in repr(finished.planned.plan.recipe)
    with pytest.warns(FlopsFitWarning, match=r"the weights of the models at C=6e\+07, 2e\+08 are"):
        keeping(finished).run()
    assert planted.trained == []
    with pytest.raises(SweepError, match="keeps no models; train with Recipe"):
        load(finished, SMALL_BUDGETS[0])


def test_weights_of_other_code_are_not_those_of_the_run(trained):
    for file in files(trained):
        file.rename(file.with_stem(file.stem.partition("-")[0] + "-0123abcd"))
    with pytest.warns(FlopsFitWarning, match="are not here"):
        log(trained)
    assert kept_models(trained.ledger) == []
    assert files(trained) == []


@pytest.mark.parametrize(("home", "num_logged"), [(None, 2), (Path("here"), 0)])
def test_a_worker_elsewhere_logs_what_lies_on_its_own_disk(trained, monkeypatch, home, num_logged):
    """But leaves it to the driver where the store is a file, which both of them see."""
    payload = sending.dumps(trained.open())
    monkeypatch.setattr(executors, "work", lambda job, listener, **_: None)
    monkeypatch.setattr(Ledger, "home", home)
    executors.work_remotely(payload, 0)
    monkeypatch.undo()
    assert len(kept_models(trained.ledger)) == num_logged


def test_models_move_with_their_store(trained, tmp_path):
    log(trained)
    there = trained.folder
    moved = keeping(SmallSweep(Path(shutil.move(there, tmp_path / "moved"))))
    assert_all_kept(moved)
    put_all(keeping(moved, "all"))
    log(moved)
    assert len(kept_models(moved.ledger)) == 8
    assert_all_kept(moved)
    assert not there.exists()


def test_pilot_and_check_are_not_kept(small):
    keeping(small, "all")
    job, trial = small.open(), small.planned.plan.trials[0]
    assert worker._keeper(job, trial).weights is not None
    for role in ("pilot", "check"):
        assert worker._keeper(job, replace(trial, role=role)).weights is None
    assert worker._keeper(keeping(small, None).open(), trial).weights is None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"compute_budget": 1e12}, SweepError, r"no model of C=1e\+12, but of C=6e\+07, 2e\+08"),
        ({"compute_budget": -1}, ArgumentError, "compute_budget: expected a positive"),
        ({"model_cls": 3, "name": ""}, ArgumentError, "(?s)name:.*model_cls: expected a class"),
        ({"name": "other"}, SweepError, "no sweep named 'other'"),
        ({"model_cls": torch.nn.Identity}, SweepError, "do not fit .*Identity: ValueError: layers"),
        ({"model_cls": lambda width: Net(width + 1)}, SweepError, "do not fit .*for Net"),
        ({"model_kwargs": {"depth": 2}}, SweepError, "do not fit .*unexpected keyword"),
    ],
)
def test_faults_of_loading_are_named(kept, changes, error, message):
    arguments = {"model_cls": Net, "compute_budget": SMALL_BUDGETS[0], "name": "planted"}
    with pytest.raises(error, match=message):
        flops_fit.load_model(**{**arguments, **changes}, tracking_uri=kept.uri)


def test_a_model_is_ready_to_be_evaluated(kept):
    model = load(kept, SMALL_BUDGETS[0] * 1.0001)
    assert not model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.fixture(scope="module")
def kept(finished_store, tmp_path_factory):
    """A sweep that has kept its best models."""
    folder = tmp_path_factory.mktemp("kept") / "store"
    sweep = SmallSweep(Path(shutil.copytree(finished_store, folder)))
    put_all(keeping(sweep, "all"))
    log(keeping(sweep))
    return sweep

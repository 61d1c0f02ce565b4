import sys

import pandas as pd
import pytest

from flops_fit.examples import hub

pytestmark = pytest.mark.integration  # needs the extra "hub"
datasets = pytest.importorskip("datasets")

datasets.disable_progress_bars()


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", ["parquet", "txt"])
def test_a_split_is_read_from_local_files_in_order(tmp_path, kind):
    for part, texts in enumerate((["a", "b"], ["c"])):
        file = tmp_path / "data" / f"train-0000{part}-of-00002.{kind}"
        file.parent.mkdir(exist_ok=True)
        if kind == "txt":
            file.write_text("\n".join(texts))
        else:
            pd.DataFrame({"text": texts}).to_parquet(file)
    rows = hub.load("someone/stories", "train", ["text"], tmp_path)
    assert list(hub.column(rows, "text")) == ["a", "b", "c"]


def test_a_folder_without_such_files_is_said(tmp_path):
    with pytest.raises(hub.HubError) as caught:
        hub.load("someone/stories", "train", ["text"], tmp_path)
    assert one_line(caught) == f"no *train*.parquet or *train*.txt under {tmp_path}"


def test_other_columns_are_said(tmp_path):
    pd.DataFrame({"words": ["a"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(hub.HubError) as caught:
        hub.load("someone/stories", "train", ["text"], tmp_path)
    said = "expected columns text, as someone/stories has; got words"
    assert one_line(caught) == f"{tmp_path}: {said}"


def test_no_network_is_said(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(hub.HubError) as caught:
        hub.load("someone/stories", "train", ["text"])
    assert "cannot be had from the Hugging Face Hub" in one_line(caught)
    assert "pass --data DIR" in str(caught.value)


def test_without_datasets_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(hub.HubError) as caught:
        hub.load("someone/stories", "train", ["text"])
    assert "pip install 'flops-fit[hub]'" in one_line(caught)

import sys

import pytest
import tiny_task
import torch.nn.functional

from flops_fit.cli import imports


def test_what_a_path_names_is_loaded():
    assert imports.load("tiny_task:Net") is tiny_task.Net
    assert imports.load("tiny_task:Net.num_params") is tiny_task.Net.num_params
    assert imports.load("torch.nn.functional:cross_entropy") is torch.nn.functional.cross_entropy


def test_modules_of_the_current_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("number = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert imports.load("only_here:number") == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tiny_task.Net", "did you mean tiny_task:Net?"),
        ("./models/tiny_task.py:Net", "did you mean models.tiny_task:Net?"),
        ("tiny_task", "expected package.module:Name"),
        (3, "expected package.module:Name, got 3"),
        ("tiny_task:Nett", "tiny_task has no Nett; did you mean Net?"),
        ("tiny_task:zzz", "tiny_task has no zzz$"),
        ("tiny_tusk:Net", "there is no module 'tiny_tusk' in .*; did you mean tiny_task?"),
        ("flops_fit.example.gpt:GPT", "no module .*; did you mean flops_fit.examples?"),
        ("no_package.tiny_task:Net", "there is no module 'no_package'"),
    ],
)
def test_a_wrong_path_is_reported_with_a_suggestion(path, message):
    with pytest.raises(imports.NotFoundError, match=message):
        imports.load(path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import not_installed_here", "faulty needs not_installed_here, which is not installed"),
        ("raise ValueError('two\\nlines')", "importing faulty raised ValueError: two lines"),
        ("def", "importing faulty raised SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(tmp_path, monkeypatch, code, message):
    (tmp_path / "faulty.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(imports.NotFoundError, match=message):
        imports.load("faulty:Net")

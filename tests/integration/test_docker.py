"""docker/: what compose.yaml promises of every service, and what the linters say."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flops_fit.cli.demo import BUDGETS
from flops_fit.cli.settings import read

DOCKER = Path(__file__).parents[2] / "docker"
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))
PINNED = re.compile(r"[\w./-]+:v?\d+(\.\d+)+[\w.-]*")

every_service = pytest.mark.parametrize("name", SERVICES)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    found = run(BIN / "hadolint", "--no-color", dockerfile)
    assert found.returncode == 0, found.stdout + found.stderr


def test_compose_follows_its_schema() -> None:
    schema = "--builtin-schema", "vendor.compose-spec"
    found = run(BIN / "check-jsonschema", *schema, DOCKER / "compose.yaml")
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("profile", ["server", "cpu", "gpu"])
def test_a_profile_holds_all_that_its_services_wait_for(profile: str) -> None:
    chosen = {name for name, service in SERVICES.items() if profile in service["profiles"]}
    waited_for = {other for name in chosen for other in SERVICES[name].get("depends_on", {})}
    assert waited_for <= chosen
    assert {"postgres", "s3", "mlflow"} <= chosen


@every_service
def test_a_service_is_not_root_and_can_become_nobody_else(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert "no-new-privileges:true" in service["security_opt"]


@every_service
def test_a_service_writes_to_named_volumes_and_memory_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    for volume in service.get("volumes", []):
        source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
        assert source in COMPOSE["volumes"] or volume.endswith(":ro")


@every_service
def test_what_a_service_is_made_of_is_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"])


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_starts_from_a_pinned_image_and_ends_as_its_services_user(
    dockerfile: Path,
) -> None:
    lines = dockerfile.read_text().splitlines()
    assert all(PINNED.fullmatch(line.split()[1]) for line in lines if line.startswith("FROM "))
    user = [line.split()[1] for line in lines if line.startswith("USER ")][-1]
    users = {service["user"] for service in services_built_from(dockerfile)}
    assert users == {user}


def services_built_from(dockerfile: Path) -> list[dict]:
    path = f"docker/{dockerfile.parent.name}/Dockerfile"
    built = [service for service in SERVICES.values() if "build" in service]
    return [service for service in built if service["build"]["dockerfile"] == path]


@every_service
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_object_store_is_reached_by_mlflow_alone() -> None:
    assert COMPOSE["networks"]["store"]["internal"] is True
    assert "ports" not in SERVICES["s3"]
    assert SERVICES["s3"]["networks"] == ["store"]
    inside = {name for name, service in SERVICES.items() if "store" in service["networks"]}
    assert inside == {"s3", "mlflow"}


@every_service
def test_a_service_has_a_health_check_and_waits_for_healthy_ones(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for awaited in SERVICES[name].get("depends_on", {}).values():
        assert awaited == {"condition": "service_healthy"}


@every_service
def test_secrets_are_files_that_make_secrets_draws(name: str, tmp_path: Path) -> None:
    service = SERVICES[name]
    made = {file.name for file in drawn(tmp_path).iterdir()}
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} == made
    assert set(service["secrets"]) <= made
    for key, value in service.get("environment", {}).items():
        assert "PASSWORD" not in key or key.endswith("_FILE")
        assert not re.search(r"://\w+:[^@/]+@", value)


def drawn(folder: Path) -> Path:
    secrets = folder / "secrets"
    done = run("sh", DOCKER / "make_secrets.sh", secrets)
    assert done.returncode == 0, done.stderr
    return secrets


def test_secrets_are_long_all_different_and_drawn_once(tmp_path: Path) -> None:
    secrets = drawn(tmp_path)
    first = {file.name: file.read_text() for file in secrets.iterdir()}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    passwords = [text for name, text in first.items() if not name.startswith("s3")]
    assert all(re.fullmatch("[0-9a-f]{48}", text) for text in passwords)
    assert len(set(passwords)) == len(passwords)
    (secrets / "optuna_password").unlink()
    second = {file.name: file.read_text() for file in drawn(tmp_path).iterdir()}
    assert {name for name in first if first[name] != second[name]} == {"optuna_password"}


def test_no_secret_and_no_setting_of_ones_own_is_tracked() -> None:
    ignored = (DOCKER.parent / ".gitignore").read_text().splitlines()
    assert {"docker/.env", "docker/secrets/"} <= set(ignored)


def test_the_example_of_settings_has_those_that_compose_reads() -> None:
    lines = (DOCKER / ".env.example").read_text().splitlines()
    given = dict(line.split("=") for line in lines if line and not line.startswith("#"))
    read = dict(re.findall(r"\$\{(\w+):-(.*?)\}", (DOCKER / "compose.yaml").read_text()))
    assert given == read


def test_mlflow_runs_with_accounts_a_list_of_hosts_and_no_jobs() -> None:
    service = SERVICES["mlflow"]
    assert "--app-name=basic-auth" in service["command"]
    hosts = next(word for word in service["command"] if word.startswith("--allowed-hosts="))
    assert "*" not in hosts
    assert service["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_versions_are_those_that_the_tests_ran_with() -> None:
    pins = (DOCKER.parent / "constraints.txt").read_text()
    version = SERVICES["mlflow"]["image"].rpartition(":")[2]
    assert f"\nmlflow=={version}\n" in pins


@pytest.mark.parametrize("script", ["make_secrets.sh", "postgres/init.sh", "trainer/start.sh"])
def test_scripts_may_be_run(script: str) -> None:
    assert os.access(DOCKER / script, os.X_OK)


def test_the_sweep_that_comes_with_it_is_that_of_the_demo() -> None:
    settings = read(DOCKER / "sweep/sweep.yaml", {})
    assert settings.compute_budgets == BUDGETS
    assert settings.task().model_cls.__name__ == "FeedForwardLM"


def test_the_readme_names_what_compose_has() -> None:
    text = (DOCKER / "README.md").read_text()
    named = re.findall(r"(?:--profile |COMPOSE_PROFILES=)(\w+)", text)
    assert set(named) <= {
        profile for service in SERVICES.values() for profile in service["profiles"]
    }
    images = set(re.findall(r"[\w-]+/[\w-]+:\d[\w.-]*", text))
    assert images <= {service["image"] for service in SERVICES.values()}
    volumes = set(re.findall(rf"{COMPOSE['name']}_(\w+)", text))
    assert volumes <= set(COMPOSE["volumes"])
    services = set(re.findall(r"docker compose (?:stop|build|exec -T|run --rm) (\w+)", text))
    assert services <= set(SERVICES)
    assert images
    assert volumes
    assert services
    assert SERVICES["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"] in text
    (storage,) = re.findall(r"--storage=\S+", text)
    assert storage in SERVICES["cpu"]["command"]

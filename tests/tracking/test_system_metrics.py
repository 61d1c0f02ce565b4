from flops_fit.tracking.system_metrics import monitor


def test_nothing_is_read_unless_asked_for(monkeypatch):
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", raising=False)
    assert monitor()() == {}


def test_readings_bear_the_names_of_mlflows_own_page(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    read = monitor()
    read()
    found = read()
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert found["system/system_memory_usage_megabytes"] > 0
    assert all(name.startswith("system/") for name in found)

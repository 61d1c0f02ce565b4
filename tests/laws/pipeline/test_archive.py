import json

from planted import runs

from flops_fit.laws.pipeline import archive
from flops_fit.result import fit


def test_an_archive_of_an_older_version_is_read(tmp_path):
    """Older versions also stored intervals of k and l_inf with each power law."""
    findings = fit(runs(), num_draws=100).findings
    archive.save(tmp_path, findings, {"name": "planted"})
    path = tmp_path / "result.json"
    document = json.loads(path.read_text())
    for law in document["power_laws"].values():
        law |= {"k_interval": [1.0, 2.0], "l_inf_interval": [0.0, 0.0]}
    path.write_text(json.dumps(document))
    loaded, meta = archive.load(tmp_path)
    assert loaded.power_laws == findings.power_laws
    assert meta == {"name": "planted"}

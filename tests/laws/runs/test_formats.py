import gzip
import io
import json

import pandas as pd
import pytest
from tables import isoflop_table

from flops_fit.errors import TableError
from flops_fit.laws.runs.formats import open_table
from flops_fit.laws.runs.table import read_runs

TABLE = isoflop_table().head(4).assign(N=[5e6, 6e6, 7.5e6, 1.2e7])
TABLE["D"] = (TABLE["C"] / 6 / TABLE["N"]).round()
COLUMNS = ["num_params", "num_tokens", "flops", "loss"]


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def grouped(numbers):
    return [f"{number:,.0f}".replace(",", ".") for number in numbers]


TEXTS = {
    "comma": TABLE.to_csv(index=False),
    "semicolon": TABLE.to_csv(index=False, sep=";"),
    "semicolon and decimal comma": TABLE.to_csv(index=False, sep=";", decimal=","),
    "groups of thousands and decimal comma": TABLE.assign(
        N=grouped(TABLE["N"]),
        D=grouped(TABLE["D"]),
        C=[f"{C:.0e}" for C in TABLE["C"]],
        loss=[f"{loss:.12f}".replace(".", ",") for loss in TABLE["loss"]],
    ).to_csv(index=False, sep=";"),
    "tab": TABLE.to_csv(index=False, sep="\t"),
    "bar": TABLE.to_csv(index=False, sep="|"),
    "blanks": TABLE.to_string(index=False, float_format="{:.17g}".format),
    "markdown": "| N | D | C | loss |\n|---|---:|:-:|---|\n"
    + "\n".join(f"| {' | '.join(map(repr, row))} |" for row in TABLE.to_numpy().tolist()),
    "declared": "sep=;\n" + TABLE.to_csv(index=False, sep=";"),
    "index without a name": TABLE.to_csv(),
    "a comma at each end": "\n".join(
        line + "," * bool(i) for i, line in enumerate(TABLE.to_csv(index=False).splitlines())
    ),
    "empty rows of a spreadsheet": TABLE.to_csv(index=False, sep=";") + ";;;\n;;;\n",
    "json records": json.dumps(TABLE.to_dict("records")),
    "json columns": json.dumps(TABLE.to_dict("list")),
    "json split": json.dumps(TABLE.to_dict("split")),
    "json index": json.dumps({str(i): row for i, row in TABLE.to_dict("index").items()}),
    "json under a key": json.dumps({"runs": TABLE.to_dict("records")}),
    "json of a header and rows": json.dumps([list(TABLE), *TABLE.to_numpy().tolist()]),
    "jsonl": "\n".join(json.dumps(row) for row in TABLE.to_dict("records")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_told_by_their_content(tmp_path, name):
    table, checks = read_runs(written(tmp_path / "runs.txt", TEXTS[name]))
    for given, column in zip("N D C loss".split(), COLUMNS, strict=True):
        assert table[column].tolist() == pytest.approx(TABLE[given].tolist(), rel=1e-11)
    assert checks == []


def test_open_files():
    assert len(read_runs(io.StringIO(TEXTS["tab"]))[0]) == 4
    assert len(read_runs(io.BytesIO(gzip.compress(TEXTS["jsonl"].encode())))[0]) == 4
    with pytest.raises(TableError, match="the file could not be read as CSV"):
        read_runs(io.StringIO(""))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding):
    text = TABLE.assign(note="größer").to_csv(index=False, sep=";")
    table, _ = read_runs(written(tmp_path / "runs.csv", text, encoding))
    assert table["num_params"].tolist() == TABLE["N"].tolist()
    assert table["note"].tolist() == ["größer"] * 4


def test_compressed_parquet_and_feather(tmp_path):
    pytest.importorskip("pyarrow")
    TABLE.set_index(["N", "D"]).to_parquet(tmp_path / "without_suffix")
    TABLE.to_feather(tmp_path / "runs.feather")
    (tmp_path / "runs.csv.gz").write_bytes(gzip.compress(TABLE.to_csv(index=False).encode()))
    for path in tmp_path.iterdir():
        assert read_runs(path)[0]["num_params"].tolist() == TABLE["N"].tolist()


class Elsewhere:
    """A table of another library."""

    def to_pandas(self):
        return TABLE


@pytest.mark.parametrize(
    "runs",
    [
        TABLE.set_index(["N", "D"]),
        TABLE.set_index("N").sort_values("loss", ascending=False).sort_index(),
        TABLE.to_dict("list"),
        TABLE.to_dict("records"),
        {name: TABLE[name].to_numpy() for name in TABLE},
        [{"config": {"N": N, "D": D}, "summary": {"loss": L}} for N, D, _, L in TABLE.to_numpy()],
        TABLE.set_axis(pd.MultiIndex.from_tuples([(name, "") for name in TABLE]), axis=1),
        Elsewhere(),
    ],
)
def test_tables_in_memory(runs):
    assert read_runs(runs)[0]["num_params"].tolist() == TABLE["N"].tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"N": [1, 2', "could not be read as CSV: Expecting"),
        (b"", "could not be read as CSV: No columns"),
        (b"N,D,loss\n1,2,3\n1,2,3,4,5\n", "could not be read as CSV"),
        (b"PAR1 and no more", "could not be read as CSV|needs another package"),
        (b"\x1f\x8b and no more", "could not be read as CSV"),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_runs(path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def lacks(*_):
        raise ImportError("Unable to find a usable engine; tried using: 'pyarrow'")

    monkeypatch.setattr(pd, "read_parquet", lacks)
    path = tmp_path / "runs.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(
        TableError, match=r"needs another package .*pyarrow.* save the table as CSV"
    ):
        open_table(path)


def test_a_folder_and_a_dict_of_numbers(tmp_path):
    with pytest.raises(TableError, match="is a folder; expected a DataFrame"):
        read_runs(tmp_path)
    with pytest.raises(TableError, match="a dict that is no table"):
        read_runs({"N": 1, "D": 2, "loss": 3})


def test_comments_above_the_header_are_skipped(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("# my sweep\n# 35 runs\nN,D,loss\n1e6,1e9,3.0\n")
    assert open_table(path)[0].columns.tolist() == ["N", "D", "loss"]

"""Do 95 % intervals contain what real sweeps found at budgets that were held out?

For every public table (see `find_data`), the largest one, two and three budgets are held out, or
the target models where the table names them. `flops_fit.fit` with its defaults sees the rest.
Prints, for each group of tables, the share of 95 % intervals that contain

* the loss of a held-out run (interval of a new run),
* the mean of ln loss over a split's held-out runs (interval of the law's loss),
* N_opt of a held-out row: the vertex of a parabola through its runs within 0.75 decades of its
  least loss, if it is convex by three standard errors and its vertex lies inside,
* L_opt: the loss at that vertex,

with the median half-width (of ln N or ln loss), the factor by which all intervals would have to be
wider to contain 95 %, and the median error beside that of the rows' own power law:

    python benchmarks/calibration.py [results.csv] [table ...]
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

import flops_fit
from flops_fit.errors import FlopsFitError

# Budgets closer than this are one row.
ROW = 1.12
# Fewest runs of a row, rows for cuts by row, rows for three cuts, and runs left to fit.
LEAST_IN_ROW, LEAST_ROWS, MANY_ROWS, LEAST_TRAIN = 5, 4, 6, 9
# Shares of the runs that are kept where runs form no rows.
SHARES = (0.8, 0.6)
WITHIN = 0.75 * np.log(10)
COLUMNS = {"N": "num_params", "D": "num_tokens", "C": "compute_budget", "loss": "loss"}
Split = tuple[str, str, pd.DataFrame, pd.DataFrame]


def find_data() -> Path:
    """The folder of the public tables, which are not part of this repository."""
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("FLOPS_FIT_SHARED_DATA", here.parent / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"no public tables in {folder}: set FLOPS_FIT_SHARED_DATA to their folder")
    return folder


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables by name, with columns N, D, C and loss."""
    public, tables = folder / "public", {}
    for name in ("llama3", "marin_comma", "misfitting"):
        table = pd.read_csv(public / f"{name}.csv")
        tables[name] = table[~table["outlier"].astype(bool)]
    tables["xlstm"] = pd.read_csv(public / "xlstm_llama_ctx8192.csv").assign(C=lambda t: t["flops"])
    tables["oellm"] = pd.read_csv(public / "oellm.csv")
    grids = pd.read_csv(public / "steplaw_lr_batch.csv").groupby(["N", "D"], as_index=False)
    tables["steplaw"] = grids["loss"].min().assign(C=lambda t: 6.0 * t["N"] * t["D"])
    repeated = pd.read_csv(public / "datablations_all.csv")
    tables["datablations"] = repeated[repeated["D"] <= 1.0001 * repeated["U"]]
    mlf = pd.read_csv(public / "mlf_c4.csv")
    tables["mlf_c4"] = mlf.assign(target=mlf["N"] > 0.5e9)
    tables["epoch"] = pd.read_csv(folder / "epoch_chinchilla" / "runs240_CNDloss.csv")
    porian = pd.read_csv(folder / "porian" / "isoflop_points.csv").rename(columns={"flops": "C"})
    keys = ["file", "dataset", "hparams", "warmup", "decay", "param_count", "val"]
    for key, table in porian.groupby(keys):
        tables["porian " + " ".join(str(part) for part in key)] = table
    return {
        name: table[[*COLUMNS, *{"target"} & set(table)]].dropna().astype(float)
        for name, table in tables.items()
    }


def splits(name: str, table: pd.DataFrame) -> Iterator[Split]:
    """The runs to fit and those held out, for each cut."""
    if "target" in table:
        held = table["target"] > 0
        yield name, "targets", table[~held], table[held]
        return
    C = table["C"].to_numpy()
    rows = [C[row] for row in rows_by_budget(C) if row.sum() >= LEAST_IN_ROW]
    if len(rows) >= LEAST_ROWS:
        most = 3 if len(rows) >= MANY_ROWS else 1
        cuts = [row.min() for row in rows[::-1][:most]]
    else:
        cuts = [np.sort(C)[int(share * len(C))] for share in SHARES]
    for i, cut in enumerate(cuts, 1):
        held = C >= 0.999 * cut
        if (~held).sum() >= LEAST_TRAIN:
            yield name, f"top {i}", table[~held], table[held]


def rows_by_budget(C: np.ndarray) -> list[np.ndarray]:
    """A mask for each row, by ascending budget."""
    labels, first, label = np.zeros(len(C), int), -np.inf, -1
    for i in np.argsort(C, kind="stable"):
        if C[i] > first * ROW:
            label, first = label + 1, C[i]
        labels[i] = label
    return [labels == g for g in range(label + 1)]


def row_optimum(row: pd.DataFrame) -> tuple[float, float, float] | None:
    """Ln C, ln N and ln loss at the vertex of a row; None where it shows none."""
    x, t = np.log(row["N"].to_numpy()), np.log(row["loss"].to_numpy())
    near = np.abs(x - x[t.argmin()]) < WITHIN
    x, t = x[near], t[near]
    if len(np.unique(np.round(x, 4))) < 4:
        return None
    z = x - x.mean()
    design = np.stack([np.ones_like(z), z, z * z], axis=1)
    c = np.linalg.lstsq(design, t, rcond=None)[0]
    r = t - design @ c
    error = np.sqrt(np.linalg.inv(design.T @ design)[2, 2] * (r @ r) / max(len(z) - 3, 1))
    vertex = -c[1] / (2 * c[2])
    if c[2] < max(3 * error, 1e-12) or not z.min() < vertex < z.max():
        return None
    return float(np.log(row["C"]).mean()), vertex + x.mean(), c[0] + c[1] * vertex / 2


def judge(split: Split) -> list[dict[str, object]]:
    """One row for each held-out run, for the split's mean, and for N and L of each held-out row.

    `error` and `half` are those of ln loss or ln N; `rows_error` is that of the power law through
    the rows' own optima.
    """
    name, cut, train, held = split
    warnings.simplefilter("ignore")
    try:
        result = flops_fit.fit(train[list(COLUMNS)].rename(columns=COLUMNS))
        table = result.predict_loss(held["N"].to_numpy(), held["D"].to_numpy())
    except FlopsFitError as refusal:
        return [{"table": name, "cut": cut, "kind": "refused", "why": str(refusal)}]
    t = np.log(held["loss"].to_numpy())
    error = t - np.log(table["loss"])
    run, mean = (
        (np.log(table[f"{of}_high"]) - np.log(table[f"{of}_low"])) / 2 for of in ("run", "loss")
    )
    base = {"table": name, "cut": cut, "rows_error": np.nan, "rms": np.sqrt((error**2).mean())}
    found = [
        {**base, "kind": "run", "error": e, "half": h} for e, h in zip(error, run, strict=True)
    ]
    noise = np.sqrt(np.maximum(run**2 - mean**2, 0).mean() / len(held))
    found.append(
        {**base, "kind": "mean", "error": error.mean(), "half": np.hypot(mean.mean(), noise)}
    )
    line = _own_line(train)
    for row in rows_by_budget(held["C"].to_numpy()):
        optimum = row_optimum(held[row])
        if optimum is not None:
            found += _judge_optimum(result, base, optimum, line)
    return found


def _own_line(train: pd.DataFrame) -> np.ndarray | None:
    """The line of ln N over ln C through the vertices of the rows that were fitted."""
    rows = [row_optimum(train[row]) for row in rows_by_budget(train["C"].to_numpy())]
    points = np.array([row for row in rows if row is not None])
    return np.polyfit(points[:, 0], points[:, 1], 1) if len(points) >= 3 else None


def _judge_optimum(
    result: flops_fit.Result,
    base: dict[str, object],
    optimum: tuple[float, float, float],
    line: np.ndarray | None,
) -> list[dict[str, object]]:
    log_C, x, t = optimum
    try:
        found = result.predict(float(np.exp(log_C)))
    except FlopsFitError as refusal:
        return [{**base, "kind": "refused", "why": str(refusal)}]
    N, L = np.log(found.num_params_interval), np.log(found.loss_interval)
    own = np.nan if line is None else x - np.polyval(line, log_C)
    error = x - np.log(found.num_params)
    return [
        {**base, "kind": "N_opt", "error": error, "half": np.ptp(N) / 2, "rows_error": own},
        {**base, "kind": "L_opt", "error": t - np.log(found.loss), "half": np.ptp(L) / 2},
    ]


def summary(judged: pd.DataFrame) -> pd.DataFrame:
    """Coverage, width and error for each group of tables and each kind."""
    judged = judged.assign(
        group=np.where(judged["table"].str.startswith("porian"), "Porian", judged["table"])
    )
    judged.loc[~judged["group"].isin(["Porian", "epoch"]), "group"] = "seven public"
    both = pd.concat([judged, judged.assign(group="all")])
    both = both[both["kind"] != "refused"]
    rows = []
    for (group, kind), part in both.groupby(["group", "kind"], sort=False):
        error, half = part["error"].abs(), part["half"]
        rows.append(
            {
                "tables": group,
                "interval": kind,
                "n": len(part),
                "covered": (error <= half).mean(),
                "half-width": half.median(),
                "just covers": (error / half).quantile(0.95),
                "median error": error.median(),
                "rows' own": part["rows_error"].abs().median(),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    tables = read_tables(find_data())
    wanted = sys.argv[2:]
    chosen = {
        name: table
        for name, table in tables.items()
        if not wanted or any(word in name for word in wanted)
    }
    jobs = [split for name, table in chosen.items() for split in splits(name, table)]
    with ProcessPoolExecutor() as pool:
        judged = pd.DataFrame([row for part in pool.map(judge, jobs) for row in part])
    if len(sys.argv) > 1:
        judged.to_csv(sys.argv[1], index=False)
    refused = judged[judged["kind"] == "refused"]
    print(f"{len(jobs)} splits of {len(chosen)} tables; {len(refused)} refusals")
    for row in refused.itertuples():
        print(f"  {row.table}, {row.cut}: {row.why}")
    print(summary(judged).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    rms = judged.groupby(["table", "cut"])["rms"].first()
    print(f"median over splits of the rms error of a held-out loss: {rms.median():.4f}")


if __name__ == "__main__":
    main()

"use strict";
// Shows what the grids of this page say; see flops_fit/report/grids.py. Writes text only.
(() => {
  const { grid, words } = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const put = (id, text, value) => {
    const place = at(id);
    if (!place) return;
    place.textContent = text;
    if (value === undefined) delete place.dataset.value;
    else place.dataset.value = value;
  };

  // Numbers as flops_fit/report/words.py writes them.
  const three = (x) => x.toPrecision(3);
  const flops = (x) => {
    const text = x >= 1000 || x < 1e-3 ? x.toExponential(2) : String(Number(x.toPrecision(3)));
    return text.replace(/\.?0+e/, "e");
  };
  const count = (x) => {
    if (x >= 999.5e12) return flops(x);
    for (const [size, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
      if (x >= 0.9995 * size) return three(x / size) + suffix;
    return three(x);
  };
  const loss = (x) => x.toPrecision(4);

  // Where x lies on an axis: two neighbours with linear weights, four with Lagrange's.
  function spot(axis, x) {
    const last = axis.length - 1, slack = 1e-9;
    if (x < axis[0] - slack || x > axis[last] + slack) return null;
    let i = 0;
    while (i < last - 1 && x > axis[i + 1]) i += 1;
    const t = (x - axis[i]) / (axis[i + 1] - axis[i]);
    const linear = [[i, 1 - t], [i + 1, t]];
    const first = Math.min(Math.max(i - 1, 0), Math.max(last - 3, 0));
    const nodes = axis.slice(first, first + 4);
    const smooth = nodes.map((node, j) => [
      first + j,
      nodes.reduce((w, other, k) => (k === j ? w : w * (x - other) / (node - other)), 1),
    ]);
    return { linear, smooth };
  }
  const sum = (weights, value) =>
    weights.reduce((total, [j, w]) => (w === 0 ? total : total + w * value(j)), 0);

  // Middles by four points a side; ends of intervals linearly, as distances from the middle.
  const isMiddle = (key) => key.length === 1;
  const distance = (columns, key, j) => (columns[key][j] ?? NaN) - columns[key[0]][j];
  function along(columns, place) {
    const told = {};
    for (const key of Object.keys(columns))
      told[key] = isMiddle(key)
        ? sum(place.smooth, (j) => columns[key][j] ?? NaN)
        : told[key[0]] + sum(place.linear, (j) => distance(columns, key, j));
    return told;
  }
  function across(rows, row, place) {
    const told = {};
    for (const key of Object.keys(rows[0]))
      told[key] = isMiddle(key)
        ? sum(row.smooth, (i) => sum(place.smooth, (j) => rows[i][key][j] ?? NaN))
        : told[key[0]] +
          sum(row.linear, (i) => sum(place.linear, (j) => distance(rows[i], key, j)));
    return told;
  }

  // What Result.predict says, or why nothing is said.
  function predict(asked) {
    const { C, ratio, unique } = asked;
    for (const [name, value] of Object.entries(asked))
      if (value !== null && !(value > 0 && value < Infinity))
        return { refusal: `${name}: expected a positive number` };
    if (ratio !== null && unique !== null)
      return { refusal: `Give ${words.unit} per parameter or unique ${words.unit}, not both.` };
    const place = spot(grid.c, Math.log(C));
    if (!place) {
      const beyond = C > grid.largest;
      return {
        refusal: beyond && !grid.beyond
          ? `Nothing is predicted beyond ${flops(grid.largest)} FLOPs, the largest budget: see above.`
          : `This page holds budgets from ${flops(Math.exp(grid.c[0]))} to ` +
            `${flops(Math.exp(grid.c.at(-1)))} FLOPs.`,
      };
    }
    let told = along(grid.free, place);
    const coarse = grid.coarse && spot(grid.coarse, Math.log(C));
    if (ratio !== null) {
      const row = spot(grid.ratios.at, Math.log(ratio));
      if (!row || !coarse)
        return { refusal: `This page holds ratios from ${flops(Math.exp(grid.ratios.at[0]))} to ` +
          `${flops(Math.exp(grid.ratios.at.at(-1)))}; ask result.predict for others.` };
      told = across(grid.ratios.rows, row, coarse);
    } else if (unique !== null) {
      const axis = grid.caps.at, short = told.d - Math.log(unique), row = spot(axis, short);
      if (short > axis[0] && !(row && coarse))
        return { refusal: `So few unique ${words.unit} would be seen over ` +
          `${count(Math.exp(axis.at(-1)))} times: ask result.predict.` };
      if (short > axis[0]) told = across(grid.caps.rows, row, coarse);
    }
    for (const key of Object.keys(told)) if (key[0] !== "l") told[key] = Math.exp(told[key]);
    if (!(told.n >= 1 && told.d >= 1))
      return { refusal: `${flops(C)} FLOPs do not pay for this: raise the budget.` };
    return told;
  }

  function sizeFor(N) {
    const { n, is, step } = grid.sizes, x = Math.log(N);
    const numbers = is.every((size) => typeof size === "number" && size > 0);
    if (!numbers || n.length < 2) {
      const far = n.map((known) => Math.abs(known - x));
      return is[far.indexOf(Math.min(...far))];
    }
    let i = 0;
    while (i < n.length - 2 && x > n[i + 1]) i += 1;
    const t = (x - n[i]) / (n[i + 1] - n[i]);
    const value = Math.exp((1 - t) * Math.log(is[i]) + t * Math.log(is[i + 1]));
    return step ? Math.max(step, Math.round(value / step) * step) : Number(value.toPrecision(4));
  }

  function doubts(asked, told) {
    const said = [], factor = asked.C / grid.largest;
    if (factor > 1.1)
      said.push([factor > 100 ? "warn" : "note",
        `Extrapolated: ${flops(factor)} times the largest budget of the sweep.` +
        (factor > 100 ? " Add a budget nearer to it." : "")]);
    if (told.n_low === undefined)
      said.push(["warn", "From the IsoFLOP power laws alone, without intervals." +
        (words.no_loss && ` There is ${words.no_loss}.`)]);
    const ratio = told.d / told.n;
    if (asked.ratio !== null && !(grid.trained[0] / 1.5 <= ratio && ratio <= grid.trained[1] * 1.5))
      said.push(["warn", `Runs had ${flops(grid.trained[0])} to ${flops(grid.trained[1])} ` +
        `${words.unit} per parameter: the law was never tried at this ratio.`]);
    if (grid.priced && !(grid.priced[0] / 1.01 <= told.n && told.n <= grid.priced[1] * 1.01))
      said.push(["note", "FLOPs at this size are extrapolated from the sizes trained."]);
    if (asked.unique !== null && told.d > asked.unique) {
      const times = told.d / asked.unique;
      const worth = Math.exp(-(times - 1) * grid.caps.fading);
      said.push(["note", `Each of them is seen ${flops(times)} times.`]);
      if (worth < grid.caps.worn_out)
        said.push(["warn", `Once more is worth ${Number((100 * worth).toPrecision(2))} % of new ` +
          `${words.unit}: more compute hardly lowers the loss. Find more data, or spend less.`]);
      if (grid.capped_note) said.push(["note", grid.capped_note]);
    }
    return said;
  }

  const OUT = [["n", "n", count], ["d", "d", count], ["loss", "l", loss]];
  function show(asked) {
    const told = predict(asked);
    const refused = told.refusal !== undefined;
    for (const [id, key, form] of OUT) {
      const low = told[`${key}_low`], high = told[`${key}_high`];
      if (refused || told[key] === undefined) put(id, "–");
      else put(id, form(told[key]), told[key]);
      const known = !refused && Number.isFinite(low) && Number.isFinite(high);
      put(`${id}-between`, known ? `(${form(low)} to ${form(high)})` : "",
        known ? `${low} ${high}` : undefined);
    }
    put("per", refused ? "–" : three(told.d / told.n));
    put("size", refused ? "–" : grid.sizes && sizeFor(told.n));
    const list = at("doubts");
    list.replaceChildren();
    for (const [severity, text] of refused ? [["refuse", told.refusal]] : doubts(asked, told)) {
      const item = document.createElement("li");
      item.className = severity;
      item.textContent = text;
      list.append(item);
    }
  }

  // The budget the slider stands for, of which the box shows three digits; null once one is typed.
  let chosen = null;
  function choose(C) {
    chosen = C;
    at("budget").value = flops(C);
  }
  function read() {
    const number = (id) => {
      const text = at(id)?.value.trim().replace(/[,\s_]/g, "");
      return text ? Number(text) : null;
    };
    return { C: chosen ?? number("budget") ?? NaN, ratio: number("ratio"), unique: number("unique") };
  }
  function keep(asked) {
    const parts = Object.entries(asked).filter(([, v]) => v !== null && v > 0);
    const state = parts.map(([k, v]) => `${k}=${Number(v.toPrecision(9))}`).join("&");
    try {
      history.replaceState(null, "", `#${state}`);
    } catch {
      // A sandboxed frame has no address of its own.
    }
  }
  function update(moved) {
    const asked = read();
    if (!moved && asked.C > 0) {
      const x = Math.log(asked.C);
      const far = grid.c.map((c) => Math.abs(c - x));
      at("slider").value = far.indexOf(Math.min(...far));
    }
    show(asked);
    keep(asked);
  }
  function restore() {
    const given = new URLSearchParams(location.hash.slice(1));
    choose(Number(given.get("C") ?? grid.largest));
    for (const id of ["ratio", "unique"]) if (at(id)) at(id).value = given.get(id) ?? "";
    update(false);
  }

  function copyTable() {
    const rows = [...at("table").rows].map((row) =>
      [...row.cells].map((cell) => cell.textContent.trim()).join("\t"));
    const select = () => {
      getSelection().selectAllChildren(at("table"));
      let done = false;
      try {
        done = document.execCommand("copy");
      } catch {
        // The selection stays; the reader copies it.
      }
      put("copied", done ? "Copied." : "Selected: press Ctrl+C or Cmd+C.");
    };
    if (!navigator.clipboard) return select();
    navigator.clipboard.writeText(rows.join("\n")).then(() => put("copied", "Copied."), select);
  }
  at("copy")?.addEventListener("click", copyTable);

  if (!grid) return;
  const slider = at("slider");
  slider.max = grid.c.length - 1;
  slider.addEventListener("input", () => {
    choose(Number(Math.exp(grid.c[slider.value]).toPrecision(12)));
    update(true);
  });
  for (const id of ["budget", "ratio", "unique"])
    at(id)?.addEventListener("input", () => {
      if (id === "budget") chosen = null;
      update(false);
    });
  addEventListener("hashchange", restore);
  restore();
})();

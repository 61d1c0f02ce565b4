"use strict";
// Shows predictions from the grids of this page, which flops_fit/report/slider_data.py computes.
// Writes text only, never HTML: names come from users.
(() => {
  const { grid, labels } = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const put = (id, text, value) => {
    const place = at(id);
    if (!place) return;
    place.textContent = text;
    if (value === undefined) delete place.dataset.value;
    else place.dataset.value = value;
  };

  // Numbers as flops_fit.display.number_text.py formats them.
  const three = (x) => x.toPrecision(3);
  const flops = (x) => {
    const text = x >= 1000 || x < 1e-3 ? x.toExponential(2) : String(Number(x.toPrecision(3)));
    return text.replace(/\.?0+e/, "e");
  };
  const count = (x) => {
    if (x >= 999.5e12) return flops(x);
    for (const [size, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
      if (x >= 0.9995 * size) return three(x / size) + suffix;
    return x < 10 && x !== Math.round(x) ? three(x) : x.toFixed(0);
  };
  const loss = (x) => x.toPrecision(4);
  const ratio = (x) => (x >= 1e-4 ? String(Number(x.toPrecision(3))) : flops(x));
  const times = (x) => (x >= 100 ? Math.round(x).toLocaleString("en") : flops(x));

  // The place of x on an axis, as interpolation weights: linear between the two neighbours, and
  // Lagrange's of the four nearest points. Null outside the axis.
  function locate(axis, x) {
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

  // Values (keys of one letter) are interpolated through four points. Ends of intervals are
  // interpolated linearly, as distances from their value.
  const isValue = (key) => key.length === 1;
  const distance = (columns, key, j) => (columns[key][j] ?? NaN) - columns[key[0]][j];
  function along(columns, place) {
    const values = {};
    for (const key of Object.keys(columns))
      values[key] = isValue(key)
        ? sum(place.smooth, (j) => columns[key][j] ?? NaN)
        : values[key[0]] + sum(place.linear, (j) => distance(columns, key, j));
    return values;
  }
  // The same over two axes: rows (ratios or data limits) and budgets.
  function across(rows, row, place) {
    const values = {};
    for (const key of Object.keys(rows[0]))
      values[key] = isValue(key)
        ? sum(row.smooth, (i) => sum(place.smooth, (j) => rows[i][key][j] ?? NaN))
        : values[key[0]] +
          sum(row.linear, (i) => sum(place.linear, (j) => distance(rows[i], key, j)));
    return values;
  }

  // The prediction for a query, as Result.predict returns it, or the reason of a refusal.
  function predict(query) {
    const { C, ratio, unique } = query;
    for (const [name, value] of Object.entries(query))
      if (value !== null && !(value > 0 && value < Infinity))
        return { refusal: `${name}: expected a positive number` };
    if (ratio !== null && unique !== null)
      return { refusal: `Give ${labels.unit} per parameter or unique ${labels.unit}, not both.` };
    const place = locate(grid.c, Math.log(C));
    if (!place) {
      const beyond = C > grid.largest;
      return {
        refusal: beyond && !grid.beyond
          ? `Predictions beyond the largest budget, ${flops(grid.largest)} FLOPs, are refused: see above.`
          : `This page covers budgets from ${flops(Math.exp(grid.c[0]))} to ` +
            `${flops(Math.exp(grid.c.at(-1)))} FLOPs.`,
      };
    }
    let prediction = along(grid.free, place);
    const coarse = grid.coarse && locate(grid.coarse, Math.log(C));
    if (ratio !== null) {
      const row = locate(grid.ratios.at, Math.log(ratio));
      if (!row || !coarse)
        return { refusal: `This page covers ratios from ${flops(Math.exp(grid.ratios.at[0]))} to ` +
          `${flops(Math.exp(grid.ratios.at.at(-1)))}; use result.predict for others.` };
      prediction = across(grid.ratios.rows, row, coarse);
    } else if (unique !== null) {
      const axis = grid.caps.at, short = prediction.d - Math.log(unique), row = locate(axis, short);
      if (short > axis[0] && !(row && coarse))
        return { refusal: `So few unique ${labels.unit} would be repeated more than ` +
          `${count(Math.exp(axis.at(-1)))} times, which this page does not cover: use result.predict.` };
      if (short > axis[0]) prediction = across(grid.caps.rows, row, coarse);
    }
    for (const key of Object.keys(prediction))
      if (key[0] !== "l") prediction[key] = Math.exp(prediction[key]);  // all but losses are logarithms
    if (!(prediction.n >= 1 && prediction.d >= 1))
      return { refusal: `${flops(C)} FLOPs are too few for this query: raise the budget.` };
    return prediction;
  }

  // The size to build for N parameters: interpolated in logarithms and rounded to a multiple of the
  // sizes' common divisor, or the nearest recorded size if sizes are not numbers.
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

  // Checks of this prediction, as [severity, message]; Result.predict has the same ones.
  function checksOf(query, prediction) {
    const found = [], factor = query.C / grid.largest;
    if (factor > 1.1)
      found.push([factor > 100 ? "warn" : "note",
        `Extrapolated to ${times(factor)} times the largest budget of the sweep.` +
        (factor > 100 ? " Add a budget nearer to it." : "")]);
    if (prediction.n_low === undefined)
      found.push(["warn", "Predicted by the IsoFLOP power laws alone, without intervals." +
        (labels.no_loss && ` ${labels.no_loss[0].toUpperCase()}${labels.no_loss.slice(1)}.`)]);
    const ratio = prediction.d / prediction.n;
    if (query.ratio !== null && !(grid.trained[0] / 1.5 <= ratio && ratio <= grid.trained[1] * 1.5))
      found.push(["warn", `The runs have ${flops(grid.trained[0])} to ${flops(grid.trained[1])} ` +
        `${labels.unit} per parameter: the law was not tested at this ratio.`]);
    const [least, most] = grid.priced ?? [0, Infinity];
    if (!(least / 1.01 <= prediction.n && prediction.n <= most * 1.01))
      found.push(["note", "What a model of this size costs is extrapolated from the sizes trained."]);
    if (query.unique !== null && prediction.d > query.unique) {
      const passes = prediction.d / query.unique;
      const worth = Math.exp(-(passes - 1) * grid.caps.fading);
      found.push(["note", `The unique ${labels.unit} are seen ${times(passes)} times.`]);
      if (worth < grid.caps.worn_out)
        found.push(["warn", `One more pass is worth ${Number((100 * worth).toPrecision(2))} % of new ` +
          `${labels.unit}: more compute hardly lowers the loss. Find more data, or spend less.`]);
      if (grid.capped_note) found.push(["note", grid.capped_note]);
    }
    if (grid.recipe) {
      const { largest, tuned, wide } = grid.recipe;
      if (query.C > 100 * largest && !(factor > 100))
        found.push(["warn", `Found at up to ${flops(largest)} FLOPs, far below this: ` +
          `${tuned.join(" and ").replaceAll("_", " ")}. Try a few values in short runs first.`]);
      for (const [key, name] of [["r", "learning_rate"], ["b", "batch_size"]]) {
        const width = prediction[`${key}_high`] / prediction[`${key}_low`];
        if (tuned.includes(name) && !(width <= wide))
          found.push(["warn", `${name.replace("_", " ")} is known within a factor of ` +
            `${times(width)} only. Try a few values in short runs first.`]);
      }
    }
    return found;
  }

  const OUT = [["n", "n", count], ["d", "d", count], ["loss", "l", loss], ["rate", "r", ratio],
    ["batch", "b", (x) => String(Math.round(x)), ratio]];
  function show(query) {
    const prediction = predict(query);
    const refused = prediction.refusal !== undefined;
    for (const [id, key, form, formEnds = form] of OUT) {
      const low = prediction[`${key}_low`], high = prediction[`${key}_high`];
      if (refused || prediction[key] === undefined) put(id, "–");
      else put(id, form(prediction[key]), prediction[key]);
      const known = !refused && Number.isFinite(low) && Number.isFinite(high);
      const unknown = refused || low === undefined ? "" : "(not known)";
      // What was given, and not found, has equal ends.
      const ends = low === high ? "" : `(${formEnds(low)} to ${formEnds(high)})`;
      put(`${id}-between`, known ? ends : unknown, known ? `${low} ${high}` : undefined);
    }
    put("per", refused ? "–" : three(prediction.d / prediction.n));
    put("size", refused ? "–" : grid.sizes && sizeFor(prediction.n));
    const list = at("doubts");
    list.replaceChildren();
    const messages = refused ? [["refuse", prediction.refusal]] : checksOf(query, prediction);
    for (const [severity, text] of messages) {
      const item = document.createElement("li");
      item.className = severity;
      item.textContent = text;
      list.append(item);
    }
  }

  // The exact budget of the slider's stop, of which the text field shows three digits; null once the
  // user has typed a budget.
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
  // The query goes into the address, so that a link or a reload shows it again.
  function keep(query) {
    const parts = Object.entries(query).filter(([, v]) => v !== null && v > 0);
    const hash = parts.map(([k, v]) => `${k}=${Number(v.toPrecision(9))}`).join("&");
    try {
      history.replaceState(null, "", `#${hash}`);
    } catch {
      // A sandboxed frame has no address to change.
    }
  }
  function update(sliderMoved) {
    const query = read();
    if (!sliderMoved && query.C > 0) {
      const x = Math.log(query.C);
      const far = grid.c.map((c) => Math.abs(c - x));
      at("slider").value = far.indexOf(Math.min(...far));
    }
    show(query);
    keep(query);
  }
  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    choose(Number(state.get("C") ?? grid.largest));
    for (const id of ["ratio", "unique"]) if (at(id)) at(id).value = state.get(id) ?? "";
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
        // Not allowed: the table stays selected, for the reader to copy.
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

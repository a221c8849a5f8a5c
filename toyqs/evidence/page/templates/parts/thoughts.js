// A thought record as the panels on thoughts read it; docs/records.md describes the file.

// The runs that have a record in this page: key, cell, seed and a name.
function recordedRuns() {
  const found = [];
  for (const cell of DATA.cells) {
    const { keys, nll } = cell.arms[cell.run];
    keys.forEach((key, at) => {
      if (RECORDS.has(key) && !found.some((run) => run.key === key))
        found.push({ key, cell, seed: nll.seeds[at], nll: nll.values[at], name: `${cell.label ? `${cell.label}, ` : ""}seed ${nll.seeds[at]}` });
    });
  }
  return found;
}

// The run whose thoughts are shown: the one chosen, or the chosen cell's first; null where it has none here.
function runNow() {
  const own = recordedRuns().filter((run) => run.cell === cellNow() || cellNow().arms[cellNow().run].keys.includes(run.key));
  return own.find((run) => run.key === state.run) ?? own[0] ?? null;
}

// Through training, where thoughts were recorded then.
function timeSlider() {
  const steps = RECORDS.get(runNow().key).evaluations.map(({ step }) => [String(step), `after step ${step}`]);
  return steps.length ? slider("in training", "time", [...steps, ["", "at the end"]], timeNow(), (time) => choose({ time })) : null;
}

// The step that is shown of the run, as text; "": the end of its training.
function timeNow() { return evaluated(runNow().key, state.time) ? state.time : ""; }

function evaluated(key, time) { return RECORDS.get(key).evaluations.some(({ step }) => String(step) === time); }

function besideNow() {
  return recordedRuns().find((run) => run.key === state.beside) ?? null;
}

// A record after training, or as it was at an evaluation in training.
class Thoughts {
  constructor(key, time) {
    this.record = RECORDS.get(key);
    const then = this.record.evaluations.find((one) => String(one.step) === time);
    this.step = then ? then.step : null; // null: after training
    this.arrays = then ? then.arrays : this.record.arrays;
    this.sequences = then ? then.rows : this.record.sequences.map((_, at) => at);
    const { log_q: q } = this.arrays;
    [, this.positions, this.count] = q.shape;
  }

  get(name, ...places) { return this.arrays[name] ? this.arrays[name].at(...places) : null; }

  // When this is, in words.
  get when() { return this.step === null ? "at the end of the training" : `after step ${this.step}`; }

  // The number of a row's sequence among the held-out ones.
  number(row) { return this.record.sequences[this.sequences[row]]; }

  // A row and a place as the page's address names them: the held-out number, and the position in the sequence from 1.
  named(row, t) { return { sequence: this.number(row), position: this.get("positions", row, t) + 1 }; }

  // The row of a held-out number, -1: it is not here.
  rowOf(number_) { return this.sequences.findIndex((_, row) => String(this.number(row)) === String(number_)); }

  // The place on the axis T of a position, and the nearest to it; -1: the model does not think there.
  placeOf(row, position) { return this.spots(row).indexOf(Number(position) - 1); }

  nearest(row, position) {
    const off = this.spots(row).map((at) => Math.abs(at + 1 - Number(position)));
    return position === "" || !Number.isFinite(Number(position)) ? 0 : off.indexOf(Math.min(...off));
  }

  spots(row) { return Array.from({ length: this.positions }, (_, t) => this.get("positions", row, t)); }

  inputs(row) {
    const { inputs } = this.record.arrays;
    return Array.from({ length: inputs.shape[1] }, (_, at) => this.record.tokens[inputs.at(this.sequences[row], at)]);
  }

  truth(row, t) { return this.record.tokens[this.arrays.truth.at(row, t)]; }

  counted(row, t) { return this.arrays.counted.at(row, t) > 0; }

  each(name, row, t) { return Array.from({ length: this.count }, (_, k) => this.get(name, row, t, k)); }

  // The symbols of one thought by name; null where the thoughts have none.
  symbols(row, t, k) {
    const named = this.arrays.symbols ?? this.arrays.nearest;
    if (!named || !this.record.symbols) return null;
    const found = [];
    for (let place = 0; place < named.shape[3]; place += 1) {
      const symbol = named.at(row, t, k, place);
      if (symbol < this.record.symbols.length) found.push(symbol);
    }
    return found;
  }

  word(row, t, k) {
    const symbols = this.symbols(row, t, k);
    return symbols && symbols.map((symbol) => this.record.symbols[symbol]);
  }

  vector(row, t, k, place) {
    const { vectors } = this.arrays;
    return Array.from({ length: vectors.shape[4] }, (_, z) => vectors.at(row, t, k, place, z));
  }

  // What the thoughts gain at a position in nats: over no thought, or else over another sequence's.
  gain(row, t) {
    const without = this.arrays.log_q_none ? this.get("log_q_none", row, t) : mean(this.each("log_q_shuffled", row, t));
    return mean(this.each("log_q", row, t)) - without;
  }

  // The prediction with a thought: token and probability, the likeliest first unless all classes are there; then the truth.
  prediction(row, t, k) {
    const [tokens, shares] = k === null ? ["predicted_none", "predicted_p_none"] : ["predicted", "predicted_p"];
    if (!this.arrays[shares]) return null;
    const places = k === null ? [row, t] : [row, t, k];
    const classes = this.arrays[shares].shape.at(-1);
    const found = Array.from({ length: classes }, (_, c) => ({ token: this.get(tokens, ...places, c) ?? c, p: this.get(shares, ...places, c) }));
    const truth = this.arrays.truth.at(row, t);
    if (found.some(({ token }) => token === truth)) return found;
    return [...found, { token: truth, p: Math.exp(k === null ? this.get("log_q_none", row, t) : this.get("log_q", row, t, k)) }];
  }

  // Whether most thoughts predict another token.
  wrong(row, t) {
    const truth = this.arrays.truth.at(row, t);
    const others = [...Array(this.count).keys()].filter((k) =>
      this.prediction(row, t, k).reduce((best, one) => (one.p > best.p ? one : best)).token !== truth);
    return others.length > this.count / 2;
  }

  // All counted positions: where, what thinking gains there, and the mean probability of the truth.
  places() {
    const found = [];
    this.sequences.forEach((_, row) => {
      for (let t = 0; t < this.positions; t += 1)
        if (this.counted(row, t)) found.push({ row, t, gain: this.gain(row, t), p: mean(this.each("log_q", row, t).map(Math.exp)) });
    });
    return found;
  }

  // Whether what follows is always what is to be predicted: a text.
  isText() {
    const { inputs } = this.record.arrays;
    for (let t = 0; t < this.positions; t += 1) {
      const at = this.arrays.positions.at(0, t);
      if (at + 1 < inputs.shape[1] && inputs.at(this.sequences[0], at + 1) !== this.arrays.truth.at(0, t)) return false;
    }
    return true;
  }
}

function hueOf(index, count) {
  const hue = count <= 12 ? (360 * index) / count : (index * 137.508) % 360;
  const [saturation, lightness] = dark() ? [0.45, 0.42] : [0.7, 0.8];
  const part = (n) => {
    const k = (n + hue / 30) % 12;
    return lightness - saturation * Math.min(lightness, 1 - lightness) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  };
  return `#${[0, 8, 4].map((n) => Math.round(255 * part(n)).toString(16).padStart(2, "0")).join("")}`;
}

// A symbol as a coloured chip; returns its width.
function symbolChip(node, record, symbol, x, y) {
  const words = tokenText(record.symbols[symbol]);
  const width = Math.max(20, widthOf(words, MONO) + 10);
  const back = hueOf(symbol, record.symbols.length);
  svg(node, "rect", { x, y, width, height: 20, rx: 4, fill: back });
  svg(node, "text", { x: x + width / 2, y: y + 14.5, "text-anchor": "middle", class: "mono", "font-size": 13, style: `fill:${onto(back)}` }, words);
  return width;
}

const MONO = "13px 'DejaVu Sans Mono', monospace";

// What is said of the thoughts that are not in the page, of some runs: the same words in every panel.
function recordGaps(keys) {
  const { left_out: left, without, unreadable } = DATA.records;
  const names = new Map(DATA.cells.flatMap(({ arms, run, label: name }) => arms[run].keys.map((key, at) => [key, { seed: arms[run].nll.seeds[at], name }])));
  const whose = (some) => {
    const cells = new Set(some.map((key) => names.get(key)?.name));
    return cells.size === 1 && cells.has(cellNow().label) ? `seed ${spans(some.map((key) => names.get(key).seed))}` : several(some.length, "run");
  };
  const [out, none, bad] = [left, without, Object.keys(unreadable)].map((all) => all.filter((key) => keys.includes(key)));
  const gaps = [];
  if (out.length) gaps.push({ words: `Left out, to keep this page small: the thoughts of ${whose(out)}. With all of them:`,
    command: `${DATA.command.replace(/ --records \d+/, "")} --records ${RECORDS.size + left.length}` });
  const lacking = [...none, ...bad];
  const said = [none.length && `Not recorded: the thoughts of ${whose(none)}.`, bad.length && `The record of ${whose(bad)} is damaged.`].filter(Boolean).join(" ");
  if (lacking.length) gaps.push({ words: `${said} This writes what is missing, and the page made again shows it:`, problems: bad.map((key) => unreadable[key]),
    command: `python -m toyqs.answers record ${lacking.length > 8 ? `${DATA.folder}/*` : lacking.map((key) => `${DATA.folder}/${key}`).join(" ")}` });
  return gaps;
}

function drawGaps(body, keys) {
  for (const { words, problems = [], command } of recordGaps(keys)) {
    for (const line of problems) body.append(html("p", { class: "problem" }, shown(line)));
    body.append(html("p", { class: "quiet gap" }, shown(words)), html("pre", {}, shown(command)));
  }
}

function noRecord(body) {
  const { keys } = cellNow().arms[cellNow().run];
  if (!cellNow().thinks) body.append(html("p", {}, "This run has no thoughts."));
  else if (!keys.length) body.append(html("p", {}, "No thinking run of this cell has finished."));
  else if (!recordGaps(keys).length) body.append(html("p", {}, "Every run of this cell diverged: its thoughts are lost."));
  drawGaps(body, keys);
  const others = [...new Set(recordedRuns().map((run) => run.cell))];
  if (others.length) body.append(html("p", {}, ["Cells with thoughts in this page: ", ...others.slice(0, 20).map((cell) =>
    html("button", { onclick: () => choose({ cell: cell.id }) }, shown(cellLabel(cell))))]));
}

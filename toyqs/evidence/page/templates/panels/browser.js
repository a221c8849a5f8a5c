// The thought browser: held-out sequences, what was thought at a position, and what that did to the prediction.

const CHIP = 30; // pixels, the height of a chip

panel({
  id: "thoughts",
  title: "Read the thoughts",
  about: "A held-out sequence. At coloured tokens the model thinks before it predicts what comes next; orange: the thoughts help there, blue: they hurt. Click one, or use ← → for the position and ↑ ↓ for the sequence.",
  uses: ["cell", "run", "beside", "time", "sequence", "position", "word"],
  controls() {
    const run = runNow();
    if (!run) return [];
    const all = recordedRuns();
    const own = all.filter((one) => cellNow().arms[cellNow().run].keys.includes(one.key));
    const { thoughts, row, t } = placeNow();
    const { sequence, position } = thoughts.named(row, t);
    const rank = (way, words, key) => html("button", { "data-id": `next-${way}`, title: `key ${key}`, onclick: () => jump(way) }, words);
    return [
      selector("run", "run", own.map((one) => [one.key, `seed ${one.seed} (loss ${number(one.nll)})`]), run.key, (key) => choose({ run: key })),
      all.length > 1 ? selector("beside it", "beside", [["", "nothing"], ...all.filter((one) => one.key !== run.key).map((one) => [one.key, one.name])], state.beside, (beside) => choose({ beside })) : null,
      timeSlider(),
      html("button", { "data-id": "sequence-before", title: "↑", onclick: () => moveSequence(-1) }, "◀"),
      html("span", { class: "quiet", id: "sequence-now" }, `sequence ${sequence} of the held-out ones (${row + 1} of ${thoughts.sequences.length} here), position ${position}`),
      html("button", { "data-id": "sequence-after", title: "↓", onclick: () => moveSequence(1) }, "▶"),
      html("span", { class: "quiet" }, "next where thinking"),
      rank("gained", "gained most", "g"), rank("lost", "lost most", "l"), rank("wrong", "was wrong", "w"),
    ].filter(Boolean);
  },
  draw(body, width) {
    if (!runNow()) { noRecord(body); return [["no record"]]; }
    const others = besideNow() && besideNow().key !== runNow().key ? [besideNow()] : [];
    const two = others.length && width > 860;
    const sides = html("div", { class: two ? "sides two" : "sides" });
    body.append(sides);
    for (const run of [runNow(), ...others]) {
      const side = html("div", { class: "side" });
      sides.append(side);
      const thoughts = new Thoughts(run.key, timeNow());
      if (others.length) side.append(html("h3", {}, shown(thoughts.record.evaluations.length ? `${run.name}, ${thoughts.when}` : run.name)));
      drawThoughts(side, thoughts, two ? (width - 28) / 2 : width);
    }
    drawLegend(body);
    drawLoss(body);
    drawGaps(body, cellNow().arms[cellNow().run].keys);
    return thoughtRows();
  },
  keys(key) {
    if (!runNow()) return false;
    const steps = { ArrowLeft: [movePosition, -1], ArrowRight: [movePosition, 1], ArrowUp: [moveSequence, -1], ArrowDown: [moveSequence, 1] };
    if (!steps[key]) return false;
    steps[key][0](steps[key][1]);
    return true;
  },
});

// The place that is shown: the one chosen, or the first at which the model thinks.
function placeNow() {
  const thoughts = new Thoughts(runNow().key, timeNow());
  const row = Math.max(0, thoughts.rowOf(state.sequence));
  return { thoughts, row, t: thoughts.nearest(row, state.position) };
}

function movePosition(step) {
  const { thoughts, row, t } = placeNow();
  if (t + step >= 0 && t + step < thoughts.positions) choose(thoughts.named(row, t + step));
}

function moveSequence(step) {
  const { thoughts, row, t } = placeNow();
  if (row + step >= 0 && row + step < thoughts.sequences.length) choose(thoughts.named(row + step, t));
}

const RANKS = { gained: (a, b) => b.gain - a.gain, lost: (a, b) => a.gain - b.gain, wrong: (a, b) => a.p - b.p };

// Go to the place where thinking gained (or lost) most, or where most thoughts were wrong and the truth least
// likely; from there to the next after it.
function jump(way) {
  if (!runNow()) return;
  const { thoughts, row, t } = placeNow();
  const places = thoughts.places().filter((one) => way !== "wrong" || thoughts.wrong(one.row, one.t)).sort(RANKS[way]);
  const last = lastJump.way === way ? places[lastJump.at] : null;
  const at = last?.row === row && last.t === t ? lastJump.at + 1 : 0;
  if (!places.length) return;
  lastJump = { way, at };
  const next = places[at % places.length];
  choose(thoughts.named(next.row, next.t));
}

let lastJump = {}; // the way and the rank of the place to which it led

function drawThoughts(side, thoughts, width) {
  const now = placeNow();
  const { sequence, position } = now.thoughts.named(now.row, now.t);
  const row = thoughts.rowOf(sequence);
  const t = row < 0 ? -1 : thoughts.placeOf(row, position);
  const same = row >= 0 && String(thoughts.inputs(row)) === String(now.thoughts.inputs(now.row));
  const lacks = thoughts.step !== now.thoughts.step ? `not recorded ${now.thoughts.when}` : row < 0 ? `sequence ${sequence} is not in this record`
    : !same ? `sequence ${sequence} is another one in this record` : t < 0 ? `this run does not think at position ${position}` : "";
  if (lacks) { side.append(html("p", { class: "lacks" }, lacks)); return; }
  drawChips(side, thoughts, row, t, width);
  drawPlace(side, thoughts, row, t, width);
}

function drawChips(side, thoughts, row, now, width) {
  const tokens = thoughts.inputs(row);
  const thinks = new Map(thoughts.spots(row).map((at, t) => [at, t]));
  const text = thoughts.isText();
  const chips = [];
  let x = 0, y = 0;
  tokens.forEach((token, at) => {
    const t = thinks.get(at);
    const words = tokenText(token) + (t === undefined || text ? "" : ` → ${tokenText(thoughts.truth(row, t))}`);
    const wide = Math.max(text ? 15 : 34, widthOf(words, MONO) + (text ? 6 : 18));
    if (x + wide > width) { x = 0; y += CHIP + 6; }
    chips.push({ words, t, x, y, wide });
    x += wide + (text ? 1 : 6);
    if (text && ["\n", "\\n"].includes(token)) { x = 0; y += CHIP + 6; }
  });
  const node = drawing(side, width, Math.max(...chips.map((chip) => chip.y)) + CHIP + 4, "the sequence");
  for (const chip of chips) drawChip(node, chip, thoughts, row, now);
}

const STRONGEST = 3; // nats at which a colour is full

function drawChip(node, { words, t, x, y, wide }, thoughts, row, now) {
  const group = svg(node, "g", {});
  let back = theme("card");
  if (t !== undefined) {
    const gain = thoughts.gain(row, t);
    back = heat(Math.max(-STRONGEST, Math.min(STRONGEST, gain)), STRONGEST);
    pressable(group, `${words}: the thoughts gain ${signed(gain, 2)} nats`, `chip-${t}`, () => choose(thoughts.named(row, t)));
    hint(group, `next is ${tokenText(thoughts.truth(row, t))}; the thoughts gain ${signed(gain, 2)} nats`);
  }
  const chosen = t !== undefined && t === now;
  svg(group, "rect", { x: x + 1, y: y + 1, width: wide - 2, height: CHIP - 2, rx: 5, fill: back, stroke: chosen ? theme("ink") : theme("line"), "stroke-width": chosen ? 2.5 : 1,
    "stroke-dasharray": t !== undefined && !thoughts.counted(row, t) ? "3 3" : null });
  svg(group, "text", { x: x + wide / 2, y: y + CHIP / 2 + 4.5, "text-anchor": "middle", class: "mono", "font-size": 13, style: `fill:${t === undefined ? theme("quiet") : onto(back)}` }, words);
}

// What was thought at one position: a line for each thought, and one without.
function drawPlace(side, thoughts, row, t, width) {
  const { record } = thoughts;
  const before = record.tokens[record.arrays.inputs.at(thoughts.sequences[row], thoughts.get("positions", row, t))];
  const code = (token) => html("code", {}, tokenText(token));
  const said = thoughts.isText() ? ["After ", code(before), " comes ", code(thoughts.truth(row, t))] : ["At ", code(before), " the answer is ", code(thoughts.truth(row, t))];
  side.append(html("p", { class: "place" }, [
    ...said, `. Its probability with the thoughts (mean of ${thoughts.count}): `, html("b", {}, share(mean(thoughts.each("log_q", row, t).map(Math.exp)))),
    thoughts.arrays.log_q_none ? `, without one: ${share(Math.exp(thoughts.get("log_q_none", row, t)))}` : "",
    `, with another sequence's: ${share(mean(thoughts.each("log_q_shuffled", row, t).map(Math.exp)))}.`,
  ]));
  const wordWidth = Math.max(84, ...Array.from({ length: thoughts.count }, (_, k) => wordRoom(thoughts, row, t, k)));
  const narrow = width < 440;
  const columns = { word: 0, p: wordWidth + 12, reward: wordWidth + 74, bar: wordWidth + 140 };
  const barWidth = Math.max(90, Math.min(220, (width - columns.bar) * 0.36));
  columns.shares = columns.bar + barWidth + 58;
  const lines = [...Array(thoughts.count).keys(), ...(thoughts.prediction(row, t, null) ? [null] : [])];
  const each = 46;
  const node = drawing(side, width, 22 + each * lines.length + 4, "the thoughts");
  text(node, columns.word, 12, "thought", { class: "quiet" });
  if (thoughts.arrays.log_prob) text(node, columns.p, 12, thoughts.arrays.vectors ? "density" : "its p", { class: "quiet" });
  if (thoughts.arrays.reward) text(node, columns.reward, 12, "reward", { class: "quiet" });
  text(node, columns.bar, 12, "p(truth) with it", { class: "quiet" });
  const highest = Math.max(0.05, ...lines.flatMap((k) => (thoughts.prediction(row, t, k) ?? []).map((one) => one.p)));
  if (!narrow) text(node, columns.shares, 12, [`the whole prediction (highest bar: ${share(highest)})`, "the whole prediction", "prediction"].find((words) => widthOf(words) <= width - columns.shares) ?? "", { class: "quiet" });
  lines.forEach((k, line) => drawThought(node, thoughts, { row, t, k, y: 22 + each * line, columns, barWidth, narrow, width, highest }));
}

function share(p) { return p >= 0.9995 ? "1.000" : p < 0.001 ? "<0.001" : p.toFixed(3); }

function wordRoom(thoughts, row, t, k) {
  const symbols = thoughts.symbols(row, t, k);
  if (!symbols) return 84;
  return symbols.reduce((sum, symbol) => sum + Math.max(20, widthOf(tokenText(thoughts.record.symbols[symbol]), MONO) + 10) + 3, 0);
}

function drawThought(node, thoughts, { row, t, k, y, columns, barWidth, narrow, width, highest }) {
  const middle = y + 22;
  const group = svg(node, "g", { class: k === null ? "without" : "thought" });
  if (k === null) text(group, columns.word, middle + 5, "no thought", { class: "quiet" });
  else drawWord(group, thoughts, row, t, k, columns.word, y + 12);
  if (k !== null) {
    const logP = thoughts.get("log_prob", row, t, k);
    if (logP !== null) hint(text(group, columns.p, middle + 5, thoughts.arrays.vectors ? number(logP, 1) : share(Math.exp(logP)), { class: "probability" }), `log-probability ${number(logP)}`);
    const reward = thoughts.get("reward", row, t, k);
    if (reward !== null) text(group, columns.reward, middle + 5, signed(reward, 2));
  }
  const p = Math.exp(k === null ? thoughts.get("log_q_none", row, t) : thoughts.get("log_q", row, t, k));
  svg(group, "rect", { x: columns.bar, y: middle - 7, width: barWidth, height: 15, fill: theme("grid") });
  svg(group, "rect", { x: columns.bar, y: middle - 7, width: Math.max(0, barWidth * p), height: 15, fill: k === null ? theme("base") : theme("accent"), class: "truth" });
  if (k !== null) {
    if (thoughts.arrays.log_q_none) tick(group, columns.bar + barWidth * Math.exp(thoughts.get("log_q_none", row, t)), middle, theme("base"), "without a thought");
    tick(group, columns.bar + barWidth * Math.exp(thoughts.get("log_q_shuffled", row, t, k)), middle, theme("ink"), "with another sequence's thought");
  }
  text(group, columns.bar + barWidth + 6, middle + 5, share(p));
  if (!narrow) drawShares(group, thoughts, thoughts.prediction(row, t, k), { truth: thoughts.arrays.truth.at(row, t), highest }, columns.shares, y + 4, width - columns.shares);
}

function tick(group, x, middle, hue, words) {
  hint(svg(group, "rect", { x: x - 1.5, y: middle - 10, width: 3, height: 21, fill: hue, class: "tick" }), words);
}

function drawWord(group, thoughts, row, t, k, x, y) {
  const symbols = thoughts.symbols(row, t, k);
  if (symbols && !symbols.length) text(group, x, y + 15, "(empty)", { class: "quiet" });
  let place = x;
  for (const symbol of symbols ?? []) place += symbolChip(group, thoughts.record, symbol, place, y) + 3;
  if (!thoughts.arrays.vectors) return;
  const length = thoughts.arrays.vectors.shape[3];
  const vectors = Array.from({ length }, (_, l) => thoughts.vector(row, t, k, l));
  hint(group, vectors.map((vector) => `(${vector.map((z) => number(z, 2)).join(", ")})`).join(" "));
  if (!symbols) vectors.flat().slice(0, 24).forEach((z, at) => {
    const high = Math.min(16, Math.abs(z) * 6);
    svg(group, "rect", { x: x + at * 5, y: z > 0 ? y + 10 - high : y + 10, width: 4, height: Math.max(0.5, high), fill: theme(z > 0 ? "accent" : "base") });
  });
}

// A prediction as bars: all classes, or the likeliest and the truth.
function drawShares(group, thoughts, prediction, { truth, highest }, x, y, room) {
  if (!prediction) return;
  const seen = new Map(prediction.map((one) => [one.token, one]));
  const each = Math.min(34, Math.max(11, room / seen.size));
  const labels = [];
  [...seen.values()].forEach(({ token, p }, at) => {
    const right = token === truth;
    const high = (22 * p) / highest;
    const bar = svg(group, "rect", { x: x + at * each + 1, y: y + 22 - high, width: each - 3, height: Math.max(0.8, high), fill: right ? theme("accent") : theme("none"), class: "share" });
    hint(bar, `${tokenText(thoughts.record.tokens[token])}: ${share(p)}`);
    labels.push({ at: x + at * each + (each - 1) / 2, right, p, words: fitted(tokenText(thoughts.record.tokens[token]), 70, SMALL_MONO) });
  });
  nameBars(group, labels, { left: x, right: x + room, y: y + 34 });
}

const SMALL_MONO = "10.5px 'DejaVu Sans Mono', monospace";

// Names below bars, the truth's and the likeliest first; those that would cover another are left out.
function nameBars(group, labels, { left, right: end, y }) {
  const taken = [];
  for (const { at, right, words } of [...labels].sort((a, b) => b.right - a.right || b.p - a.p)) {
    const half = widthOf(words, SMALL_MONO) / 2;
    const middle = Math.max(left + half, Math.min(at, end - half));
    if (taken.some((one) => Math.abs(one.middle - middle) < one.half + half + 3)) continue;
    taken.push({ middle, half });
    svg(group, "text", { x: middle, y, "text-anchor": "middle", "font-size": 10.5, class: `mono share${right ? " strong" : ""}` }, words);
  }
}

function drawLegend(body) {
  const mark = (hue, words) => html("span", { class: "quiet" }, [html("span", { class: "swatch", style: `background:${hue};border-radius:2px` }), words]);
  body.append(html("div", { class: "controls" }, [mark(theme("accent"), "probability of the truth with this thought"),
    mark(theme("base"), "mark: without a thought"), mark(theme("ink"), "mark: with another sequence's thought")]));
}

// How the record goes with the run's row.
function drawLoss(body) {
  const { thoughts } = placeNow();
  const { key } = runNow();
  if (thoughts.step !== null) return;
  const { nll: loss, error, row } = DATA.records.loss[key];
  const others = Object.entries(DATA.records.others[key]).map(([name, one]) => ({ ...one, words: OTHERS[name] }));
  const and = (which) => others.map((one) => `, ${one.words} ${number(one[which])}`).join("");
  body.append(html("p", { class: "quiet", id: "record-loss" }, `Loss at these ${thoughts.sequences.length} held-out sequences: ${number(loss)} nats${error ? ` (differs from the row's by a standard error of ${number(error)})` : ""}${and("nll")}; ` +
    `in the run's row, over all ${thoughts.record.held_out.toLocaleString("en")}: ${number(row)}${and("row")}.`));
}

const OTHERS = { nll_no_thought: "without a thought", nll_shuffled: "with another sequence's" };

function thoughtRows() {
  const rows = [["key", "sequence", "position", "token", "truth", "counted", "thought", "symbols", "log_prob", "reward", "log_q", "log_q_none", "log_q_shuffled"]];
  const { thoughts, row } = placeNow();
  const tokens = thoughts.inputs(row);
  for (let t = 0; t < thoughts.positions; t += 1) {
    const at = thoughts.get("positions", row, t);
    for (let k = 0; k < thoughts.count; k += 1)
      rows.push([runNow().key, thoughts.number(row), at + 1, tokens[at], thoughts.truth(row, t), thoughts.counted(row, t) ? 1 : 0, k + 1,
        thoughts.word(row, t, k)?.join(" "), thoughts.get("log_prob", row, t, k), thoughts.get("reward", row, t, k), thoughts.get("log_q", row, t, k),
        thoughts.get("log_q_none", row, t), thoughts.get("log_q_shuffled", row, t, k)]);
  }
  return rows;
}

// Where all of this comes from: commands, commits, versions, keys, times; what is missing.

panel({
  id: "provenance",
  title: "Where it comes from",
  about: "What made these rows, and what is not there. A key is the name of a run's folder.",
  uses: ["cell"],
  draw(body) {
    const { commands, machines, missing, origins, runs } = DATA.provenance;
    body.append(html("h3", {}, "Commands"));
    for (const { command, commit, runs: count } of commands) {
      body.append(html("pre", {}, command === "not known" ? "not known" : shown(`python ${command}`)));
      body.append(html("p", { class: "quiet" }, shown(`${several(count, "run")}, commit ${commit}`)));
    }
    if (origins) body.append(html("p", { class: "problem", id: "origins" }, shown(origins)));
    body.append(html("p", { class: "quiet" }, "This page:"), html("pre", {}, shown(DATA.command)));
    body.append(html("h3", {}, "Versions and machine"));
    for (const { words, runs: count } of machines) body.append(html("p", {}, shown(`${several(count, "run")}: ${words || "not known"}`)));
    drawMissing(body, missing);
    body.append(html("h3", {}, shown(`Keys${DATA.cells.length > 1 ? ` of ${cellLabel(cellNow())}` : ""}`)),
      html("details", {}, [html("summary", { "data-id": "keys" }, "which run is which"), keyTable()]));
    drawTimes(body, Object.values(runs));
    return provenanceRows();
  },
});

// Runs of one cell, arm and state stand in one line.
function drawMissing(body, missing) {
  body.append(html("h3", {}, "Missing, failed or damaged"));
  const whole = !missing.length && !DATA.problems.length && !DATA.records.without.length && !Object.keys(DATA.records.unreadable).length;
  body.append(html("p", { id: "whole" }, whole ? "Nothing: all that was asked for has finished."
    : missing.length ? "Asked for, without a result (the same command does what is missing):" : `All that was asked for has finished, but ${DATA.problems.length ? "files are damaged or " : ""}thoughts are missing:`));
  for (const line of DATA.problems) body.append(html("p", { class: "problem" }, shown(line)));
  const groups = new Map();
  for (const { cell, arm, seed, state: word, why } of missing) {
    const name = JSON.stringify([cell, arm, word, why]);
    groups.set(name, [...(groups.get(name) ?? []), seed]);
  }
  const rows = [...groups].map(([name, seeds]) => { const [cell, arm, word, why] = JSON.parse(name); return [cellLabel(DATA.cells[cell]), label(arm), spans(seeds), word, why]; });
  if (rows.length) {
    const several_ = DATA.cells.length > 1;
    const shownRows = [["cell", "arm", "seed", "state", "why"], ...rows].map((row) => (several_ ? row : row.slice(1)));
    body.append(html("div", { id: "missing" }, rows.length > 24 ? html("details", {}, [html("summary", { "data-id": "missing" }, several(missing.length, "run")), table(shownRows)]) : table(shownRows)));
  }
  drawGaps(body, [...DATA.records.left_out, ...DATA.records.without, ...Object.keys(DATA.records.unreadable)]);
}

function keyTable() {
  const cell = cellNow();
  const rows = [["arm", "seed", "loss, nats", "key", "CPU s", "finished (UTC)"]];
  for (const [arm, { keys, nll }] of Object.entries(cell.arms)) {
    keys.forEach((key, at) => {
      const run = DATA.provenance.runs[key];
      const lost = run?.diverged_at === null || run?.diverged_at === undefined ? "diverged" : `diverged at step ${run.diverged_at}`;
      rows.push([label(arm), nll.seeds[at], nll.values[at] === null ? lost : number(nll.values[at]), key, human(run?.cpu_seconds), when(run?.finished)]);
    });
  }
  return table(rows, [1, 2, 4]);
}

function when(seconds) {
  return seconds ? new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ") : "–";
}

function drawTimes(body, runs) {
  const total = (name) => runs.reduce((sum, run) => sum + (run[name] ?? 0), 0);
  const finished = runs.map((run) => run.finished).filter(Boolean);
  if (!runs.length) return;
  body.append(html("h3", {}, "Times"), html("p", {}, shown(`${several(runs.length, "run")}, ${duration(total("cpu_seconds"))} of CPU time; ` +
    `rows written from ${when(Math.min(...finished))} to ${when(Math.max(...finished))} (UTC).`)));
}

function provenanceRows() {
  const rows = [["cell", "arm", "seed", "key", "nll", "cpu_seconds", "wall_seconds", "train_steps", "results_version"]];
  for (const cell of DATA.cells) {
    for (const [arm, { keys, nll }] of Object.entries(cell.arms)) {
      keys.forEach((key, at) => {
        const run = DATA.provenance.runs[key] ?? {};
        rows.push([cell.name, arm, nll.seeds[at], key, nll.values[at], run.cpu_seconds, run.wall_seconds, run.train_steps, run.results_version]);
      });
    }
  }
  return rows;
}

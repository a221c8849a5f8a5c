// Numbers and names as people read them.

// A name as text: what a browser would hide or obey is spelled out.
function shown(text) {
  return String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

// A token as a chip: a blank has a sign.
function tokenText(text) {
  return text === "" ? "∅" : shown(String(text).replaceAll(" ", "␣"));
}

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  return (size >= 1e4 ? value.toPrecision(3) : value.toFixed(digits)).replace("-", "−");
}

function signed(value, digits = 3) {
  return value > 0 ? `+${number(value, digits)}` : number(value, digits);
}

function human(value) {
  if (value === null || value === undefined) return "–";
  for (const unit of ["", "k", "M", "G", "T"]) {
    if (Math.abs(value) < 999.5) return (Number.isInteger(value) && !unit ? String(value) : value.toPrecision(3)) + unit;
    value /= 1000;
  }
  return (1000 * value).toPrecision(3) + "T";
}

// A duration in seconds: 42 s, 3.1 min, 2.5 h.
function duration(seconds) {
  if (seconds < 100) return `${seconds.toPrecision(2)} s`;
  return seconds < 5400 ? `${(seconds / 60).toPrecision(2)} min` : `${(seconds / 3600).toPrecision(2)} h`;
}

function several(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// 1, 2, 3, 7 -> "1–3, 7"
function spans(numbers) {
  const runs = [];
  for (const one of [...numbers].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && one === last.at(-1) + 1) last.push(one); else runs.push([one]);
  }
  return runs.map((run) => (run.length > 2 ? `${run[0]}–${run.at(-1)}` : run.join(", "))).join(", ");
}

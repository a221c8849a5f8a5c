// The settings that tell cells apart, as axes.

const NO_EFFECT = "–"; // a cell's value of a setting that means nothing there
const CLOSEST = 30; // pixels between two values that are drawn to scale

// The values that cells have, ascending; last that of cells in which the setting means nothing.
function valuesOf(name) {
  const had = new Set(DATA.cells.map((cell) => cell.values[name]));
  const known = axisOf(name).values.filter((value) => value !== NO_EFFECT && had.has(value));
  return [...known, ...[...had].filter((value) => !known.includes(value))];
}

// Settings that change together with an earlier one, one value for one, are not axes of their own.
function together(one, other) {
  const pairs = new Set(DATA.cells.map((cell) => JSON.stringify([cell.values[one], cell.values[other]])));
  return pairs.size === valuesOf(one).length && pairs.size === valuesOf(other).length;
}

function freeAxes() {
  const found = [];
  for (const { key } of DATA.axes) if (!found.some((other) => together(other, key))) found.push(key);
  return found;
}

function axisLabel(name) {
  const along = DATA.axes.map((axis) => axis.key).filter((other) => other !== name && together(name, other));
  const words = [name, ...along].map((key) => axisOf(key).name);
  return along.length ? `${words[0]} (with it ${words.slice(1, 3).join(", ")}${along.length > 2 ? " …" : ""})` : words[0];
}

// The free settings in which cells differ that are equal in the named ones.
function otherAxes(names) {
  const groups = new Map();
  for (const cell of DATA.cells) {
    const place = JSON.stringify(names.map((name) => cell.values[name]));
    groups.set(place, [...(groups.get(place) ?? []), cell]);
  }
  const differs = (name) => [...groups.values()].some((cells) => new Set(cells.map((cell) => cell.values[name])).size > 1);
  return freeAxes().filter((name) => !names.includes(name) && differs(name));
}

// Of the cells with some values, that which has most settings as the chosen one, the named ones before all others.
function likest(values, names = []) {
  const now = cellNow().values;
  const alike = (cell, among) => among.filter((name) => cell.values[name] === now[name]).length;
  return DATA.cells.filter((cell) => Object.entries(values).every(([name, value]) => cell.values[name] === value))
    .sort((a, b) => alike(b, names) - alike(a, names) || alike(b, freeAxes()) - alike(a, freeAxes()))[0];
}

// Where the values of a setting are across: numbers to scale, linear or logarithmic, if there is room for that.
function placesAcross(name, start, end) {
  const values = valuesOf(name);
  const numbers = values.filter((value) => value !== NO_EFFECT).map((value) => DATA.cells.find((cell) => cell.values[name] === value).numbers[name]);
  const inset = Math.min(60, (end - start) / (2 * values.length));
  const apart = numbers.length < values.length ? Math.min(120, (end - start) / values.length) : 0; // the last is no number
  const joined = numbers.length > 0 && numbers.every(Number.isFinite);
  const kind = joined && Math.min(...numbers) > 0 && Math.max(...numbers) / Math.min(...numbers) >= 4 ? "log" : "linear";
  const [first, last] = [start + inset, end - inset - apart];
  const even = values.map((_, place) => first + (place * (end - inset - first)) / Math.max(1, values.length - 1));
  const found = { values, joined, places: even, note: joined && numbers.length > 1 ? " (not to scale)" : "" };
  if (joined && numbers.length > 1) {
    const x = scale(kind, [Math.min(...numbers), Math.max(...numbers)], [first, last]);
    const places = numbers.map(x);
    if (gapOf(places) >= CLOSEST) Object.assign(found, { places: apart ? [...places, end - inset] : places, note: kind === "log" ? " (log scale)" : "" });
  }
  return { ...found, at: (cell) => found.places[values.indexOf(cell.values[name])], room: Math.min(gapOf(found.places), end - start) };
}

// The least distance between neighbours, in pixels.
function gapOf(places) {
  return Math.min(...places.slice(1).map((place, at) => Math.abs(place - places[at])));
}

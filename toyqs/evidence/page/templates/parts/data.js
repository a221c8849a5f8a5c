"use strict";
// The data of the page: gzipped, in base64, in script elements that no browser runs.

let DATA = null; // what page_data in data.py returns, and what build.py adds
const RECORDS = new Map(); // key of a run -> its thought record, once it was read

async function unpack(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function recordKeys() {
  return [...document.querySelectorAll('script[id^="record-"]')].map((node) => node.id.slice("record-".length));
}

async function readData() {
  DATA = await unpack("data");
  for (const key of recordKeys()) RECORDS.set(key, readRecord(await unpack(`record-${key}`)));
}

const TYPES = { uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array };
const NOT_FINITE = -(2 ** 15); // stands in a stored number for NaN and infinities

// An array of a record: `at(i, j, ...)` is the number at a place; as many places as `shape` has.
class Numbers {
  constructor({ dtype, shape, scale, data }) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    this.values = new TYPES[dtype](bytes.buffer);
    this.shape = shape;
    this.scale = scale;
  }

  at(...places) {
    let index = 0;
    places.forEach((place, axis) => { index = index * this.shape[axis] + place; });
    const value = this.values[index];
    return value === NOT_FINITE ? NaN : value * this.scale;
  }
}

function readArrays(arrays) {
  return Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, new Numbers(array)]));
}

function readRecord(record) {
  const evaluations = record.evaluations.map((one) => ({ ...one, arrays: readArrays(one.arrays) }));
  return { ...record, arrays: readArrays(record.arrays), evaluations };
}

// The cells and what they share.

function cellNow() {
  return DATA.cells.find((cell) => cell.id === state.cell) ?? DATA.cells.find((cell) => cell.thinks) ?? DATA.cells[0];
}

function cellLabel(cell) {
  return cell.label || cell.task;
}

function controlsOf(cell) {
  return Object.keys(cell.arms).filter((arm) => arm !== cell.run);
}

// The controls over which a gain is known in any cell, in the order of display.
function knownControls() {
  return Object.keys(DATA.arms).filter((arm) => DATA.cells.some((cell) => cell.arms[arm]?.gain));
}

function controlNow() {
  const known = knownControls();
  if (known.includes(state.control)) return state.control;
  const own = known.filter((arm) => cellNow().arms[arm]?.gain);
  return own.includes("zero_length") ? "zero_length" : own[0] ?? known[0] ?? "";
}

// A setting's value in a sentence; nothing where it has no effect in the cell.
function inWords(name, value) {
  return value === "–" ? "" : axisOf(name).value.replace("{}", value);
}

function axisOf(name) {
  return DATA.axes.find((axis) => axis.key === name) ?? { key: name, name, value: `${name}={}`, values: [] };
}

function label(arm) {
  return DATA.arms[arm]?.label ?? arm;
}

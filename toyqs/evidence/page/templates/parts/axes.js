// Scales, ticks and the frame of a plot.

function scale(kind, [low, high], [start, end]) {
  const bend = kind === "log" ? Math.log10 : (x) => x;
  const [a, b] = [bend(low), bend(high)];
  const place = (x) => start + ((bend(x) - a) / (b - a || 1)) * (end - start);
  return Object.assign(place, { kind, low, high, start, end, ticks: (room) => ticks(kind, low, high, room) });
}

function ticks(kind, low, high, most) {
  if (kind === "log") {
    const found = [];
    const decades = Math.log10(high / low);
    const steps = decades > most ? [1] : decades * 3 > most ? [1, 3] : [1, 2, 5];
    const every = Math.max(1, Math.ceil(decades / most));
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      if (power % every) continue;
      for (const step of steps) {
        const tick = step * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) found.push(tick);
      }
    }
    if (found.length > 1) return found;
  }
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough) ?? power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}

function tickText(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e4) return human(value).replace(/\.0+(?=\D|$)/, "");
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

// The range that holds some numbers with a margin; `also` is inside, too.
function range(values, also = [], margin = 0.05) {
  const all = [...values, ...also].filter(Number.isFinite);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  if (!all.length) return [0, 1];
  const edge = (high - low || Math.abs(high) || 1) * margin;
  return [low - edge, high + edge];
}

function ticksUp(y) { return y.ticks(Math.max(2, Math.abs(y.start - y.end) / 45)); }

// The room that the ticks and the name of a vertical axis need, pixels.
function marginOf(y) {
  return Math.max(64, ...ticksUp(y).map((tick) => widthOf(tickText(tick)) + 30));
}

// Draw ticks, grid and names along the left and the bottom.
function frame(node, x, y, names) {
  const left = x.start, right = x.end, bottom = y.start, top = y.end;
  for (const tick of ticksUp(y)) {
    svg(node, "line", { x1: left, x2: right, y1: y(tick), y2: y(tick), class: "grid" });
    text(node, left - 6, y(tick) + 4, tickText(tick), { "text-anchor": "end" });
  }
  if (x.ticks) {
    for (const tick of x.ticks(Math.max(2, (right - left) / 90))) {
      svg(node, "line", { x1: x(tick), x2: x(tick), y1: bottom, y2: bottom + 4, class: "axis" });
      text(node, x(tick), bottom + 17, tickText(tick), { "text-anchor": "middle" });
    }
  }
  svg(node, "line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" });
  text(node, (left + right) / 2, bottom + 36, names.x, { "text-anchor": "middle", class: "quiet" });
  text(node, 0, 0, names.y, {
    "text-anchor": "middle", class: "quiet", transform: `translate(${left - marginOf(y) + 14} ${(top + bottom) / 2}) rotate(-90)`,
  });
}

function pathOf(points) {
  let open = false;
  return points.map(([x, y]) => {
    if (!Number.isFinite(x) || !Number.isFinite(y)) { open = false; return ""; }
    const step = `${open ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    open = true;
    return step;
  }).join("");
}

// The page of a training run: lines of the chosen layers over steps, and a heat map of all of them.

const data = JSON.parse(byId("hookline-data").textContent);
const MOST_LINES = 8;
const COLUMNS = 800; // of the heat map
const HEIGHT = 240, LEFT = 58, RIGHT = 10, TOP = 8, BOTTOM = 22;
const state = { of: null, figure: null, log: true, chosen: [], range: null, find: "", at: 0 };
const runs = data.runs.filter(({ steps }) => steps.length);
const last = Math.max(0, ...runs.map(({ steps }) => steps.at(-1)[1]));

// What is there: series by place, "of" and figure.
const series = runs.flatMap((run, number) => run.series.map(([path, of, figure, mean, low, high]) =>
  ({ run, number, path: run.paths[path], of, figure, mean, low, high })).filter(({ mean }) => mean.some((value) => value !== null)));
const kinds = [...new Set(series.map(({ of }) => of))];
const figuresOf = (of) => [...new Set(series.filter((each) => each.of === of).map(({ figure }) => figure))];
const shown = () => series.filter((each) => each.of === state.of && each.figure === state.figure);
const rows = () => [...new Set(shown().map(({ path }) => path))].filter((path) => path.includes(state.find));
const named = (path) => path || "(the model)";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// The state stands behind the "#" of the address, so that a page that loads itself again stays as it is.
function remember() {
  const words = new URLSearchParams({ of: state.of, figure: state.figure, log: Number(state.log), chosen: JSON.stringify(state.chosen), range: JSON.stringify(state.range) });
  history.replaceState(null, "", `#${words}`);
}

function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  const wanted = words.get("of");
  state.of = kinds.includes(wanted) ? wanted : kinds[0] ?? null;
  state.figure = figuresOf(state.of).includes(words.get("figure")) ? words.get("figure") : figuresOf(state.of)[0] ?? null;
  state.log = words.get("log") !== "0";
  try {
    state.chosen = JSON.parse(words.get("chosen") ?? "[]");
    state.range = JSON.parse(words.get("range") ?? "null");
  } catch { /* an address that somebody wrote */ }
}

// Points of one series within the range, as [first step, last step, low, mean, high].
function points({ run, mean, low, high }) {
  return run.steps.map(([begin, end], place) => [begin, end, low[place], mean[place], high[place]])
    .filter(([begin, end, , value]) => value !== null && end >= from() && begin <= to());
}

const from = () => state.range?.[0] ?? 0;
const to = () => state.range?.[1] ?? last;

// Lines

function scale(values) {
  const finite = values.filter(isNumber);
  const log = state.log && finite.some((value) => value > 0);
  const used = log ? finite.filter((value) => value > 0) : finite;
  let low = Math.min(...used), high = Math.max(...used);
  if (!used.length) { low = 0; high = 1; }
  if (low === high) { low = log ? low / 2 : low - 1; high = log ? high * 2 : high + 1; }
  const of = log ? Math.log10 : (value) => value;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (of(log ? Math.max(value, low) : value) - of(low)) / (of(high) - of(low)));
  return { low, high, log, y };
}

function quantile(values, share) {
  const sorted = values.filter(isNumber).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.round(share * (sorted.length - 1))] : null;
}

// The bands of all layers: 5 to 95 %, 25 to 75 %, and the median, at each point of the first run.
function bands() {
  const own = shown().filter(({ number }) => number === 0);
  return (runs[0]?.steps ?? []).map(([begin, end], place) => {
    const values = own.map(({ mean }) => mean[place]);
    return [begin, end, ...[0.05, 0.25, 0.5, 0.75, 0.95].map((share) => quantile(values, share))];
  }).filter(([begin, end, , , middle]) => middle !== null && end >= from() && begin <= to());
}

let width = 600;
const x = (step) => LEFT + (width - LEFT - RIGHT) * (step - from()) / Math.max(1, to() - from());
const middle = ([begin, end]) => x((begin + end) / 2);
const line = (all, place, y) => all.filter((point) => isNumber(point[place])).map((point, number) => `${number ? "L" : "M"}${middle(point).toFixed(1)} ${y(point[place]).toFixed(1)}`).join("");

function band(all, low, high, y) {
  const there = all.filter((point) => isNumber(point[low]) && isNumber(point[high]));
  const up = there.map((point) => `${middle(point).toFixed(1)} ${y(point[high]).toFixed(1)}`);
  const down = [...there].reverse().map((point) => `${middle(point).toFixed(1)} ${y(point[low]).toFixed(1)}`);
  return there.length ? `M${[...up, ...down].join("L")}Z` : "";
}

function drawLines() {
  width = Math.max(280, byId("lines").clientWidth);
  const lines = state.chosen.flatMap((path, place) => shown().filter((each) => each.path === path).map((each) => ({ ...each, place, all: points(each) })));
  const all = lines.length ? null : bands();
  const { low, high, log, y } = scale(lines.length ? lines.flatMap((each) => each.all.flatMap((point) => point.slice(2))) : all.flatMap((point) => point.slice(2)));
  const alerts = runs.flatMap((run) => run.alerts).filter(({ step }) => step >= from() && step <= to());
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => log ? 10 ** (Math.log10(low) + share * (Math.log10(high) - Math.log10(low))) : low + share * (high - low));
  const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(from() + share * (to() - from())));
  const picture = shape("svg", { class: "picture course", viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": described(lines, low, high) },
    ticks.map((value) => [shape("path", { class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}` }), shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, figure(value, 3))]),
    [...new Set(steps)].map((step) => shape("text", { x: x(step), y: HEIGHT - 6, "text-anchor": step === to() ? "end" : "middle" }, step.toLocaleString("en-US"))),
    all && [shape("path", { class: "band wide", d: band(all, 2, 6, y) }), shape("path", { class: "band", d: band(all, 3, 5, y) }), shape("path", { class: "median", d: line(all, 4, y) })],
    lines.map((each) => [shape("path", { class: `band of-${each.place % 8}`, d: band(each.all, 2, 4, y) }), shape("path", { class: `course-line of-${each.place % 8} run-${each.number % 3}`, d: line(each.all, 3, y) })]),
    alerts.map(({ step, level, text, path }) => shape("path", { class: `alert level-${level}`, d: `M${x(step)} ${TOP}V${HEIGHT - BOTTOM}` }, shape("title", {}, `step ${step}: ${named(path)}: ${text}`))),
    shape("rect", { id: "brush", class: "brush", y: TOP, height: HEIGHT - TOP - BOTTOM, width: 0, x: 0 }));
  picture.addEventListener("pointerdown", startBrush);
  picture.addEventListener("pointermove", say);
  byId("lines").replaceChildren(picture);
  byId("legend").replaceChildren(...(lines.length
    ? lines.map((each) => element("li", {}, element("span", { class: `swatch of-${each.place % 8} run-${each.number % 3}` }), `${named(each.path)}${runs.length > 1 ? ` (${each.run.name})` : ""}`))
    : [element("li", {}, "Median of all layers, with the ranges of a half and of nine tenths of them. Choose rows below to draw layers.")]));
  byId("whole").disabled = !state.range;
}

function described(lines, low, high) {
  const what = lines.length ? lines.map(({ path }) => named(path)).join(", ") : "all layers";
  return `${state.of} ${state.figure} of ${what}, steps ${from()} to ${to()}, from ${figure(low)} to ${figure(high)}`;
}

const stepAt = (event) => {
  const box = byId("lines").firstChild.getBoundingClientRect();
  const share = ((event.clientX - box.left) * width / box.width - LEFT) / (width - LEFT - RIGHT);
  return Math.round(from() + Math.min(1, Math.max(0, share)) * (to() - from()));
};

// What stands at the step under the pointer.
function say(event) {
  const step = stepAt(event);
  const own = shown().filter(({ path }) => state.chosen.includes(path));
  const words = own.map((each) => {
    const near = points(each).find(([begin, end]) => end >= step);
    return near ? `${named(each.path)}${runs.length > 1 ? ` (${each.run.name})` : ""} ${figure(near[3])}` : null;
  }).filter(Boolean);
  byId("said").textContent = `step ${step.toLocaleString("en-US")}${words.length ? `: ${words.join(", ")}` : ""}`;
}

function startBrush(event) {
  const begin = stepAt(event);
  const box = byId("brush");
  const move = (now) => {
    const [a, b] = [begin, stepAt(now)].sort((one, two) => one - two);
    box.setAttribute("x", x(a));
    box.setAttribute("width", Math.max(0, x(b) - x(a)));
  };
  const end = (now) => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", end);
    const [a, b] = [begin, stepAt(now)].sort((one, two) => one - two);
    if (b > a) state.range = [a, b];
    draw();
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", end);
}

// The heat map: a row for each layer, a column for each point, each as dark as its value among all of them.

function drawHeat() {
  const paths = rows();
  const own = new Map(shown().filter(({ number }) => number === 0).map((each) => [each.path, each]));
  const values = [...own.values()].flatMap((each) => points(each).map((point) => point[3])).filter(isNumber);
  const log = state.log && values.some((value) => value > 0);
  const used = (log ? values.filter((value) => value > 0) : values);
  const [low, high] = used.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  const of = (value) => log ? Math.log(Math.max(value, low)) : value;
  const shade = (value) => !isNumber(value) ? "bad" : (of(value) - of(low)) / ((of(high) - of(low)) || 1);
  byId("heat-title").textContent = `${state.of} ${state.figure} by layer and step, ${figure(low)} (light) to ${figure(high)} (dark)${log ? ", log scale" : ""}`;
  byId("found").textContent = state.find ? `${paths.length} of ${own.size}` : "";
  byId("heat").replaceChildren(...paths.map((path, place) => heatRow(path, place, own.get(path), shade)));
}

function heatRow(path, place, each, shade) {
  const canvas = element("canvas", { height: 1, width: COLUMNS, "aria-hidden": true });
  const all = each ? points(each) : [];
  const paint = canvas.getContext("2d");
  const { textDecorationColor: style, outlineColor: bad } = getComputedStyle(byId("heat-colors"));
  const span = Math.max(1, to() - from() + 1);
  all.forEach(([begin, end, , value], number) => {
    const until = all[number + 1]?.[0] ?? end + 1;
    const share = shade(value);
    paint.fillStyle = share === "bad" ? bad : style;
    paint.globalAlpha = share === "bad" ? 1 : 0.06 + 0.94 * share;
    const left = Math.round(COLUMNS * (begin - from()) / span);
    paint.fillRect(left, 0, Math.max(1, Math.round(COLUMNS * (until - from()) / span) - left), 1);
  });
  const value = all.at(-1)?.[3];
  return element("div", { class: `heat-row${place === state.at ? " here" : ""}`, role: "option", "aria-selected": String(state.chosen.includes(path)), id: `row-${place}`, onclick: () => choose(path, place) },
    element("span", { class: "heat-path" }, named(path)), canvas, element("span", { class: "heat-value" }, figure(value)));
}

function choose(path, place) {
  state.at = place;
  state.chosen = state.chosen.includes(path) ? state.chosen.filter((each) => each !== path) : [...state.chosen, path].slice(-MOST_LINES);
  draw();
}

// Alerts, as a list: a click shows the steps around one.

function showAlerts() {
  const all = runs.flatMap((run) => run.alerts.map((alert) => ({ ...alert, run })));
  if (!all.length) return;
  byId("marks").hidden = false;
  byId("marks-title").textContent = `Alerts (${all.length.toLocaleString("en-US")})`;
  byId("marks-list").append(...all.map((alert) => element("li", { class: "mark" },
    element("span", { class: `level level-${alert.level}` }, alert.level),
    element("div", {}, element("a", { class: "where", href: "#", onclick: (event) => { event.preventDefault(); goTo(alert); } }, `step ${alert.step}: ${named(alert.path)}`), " ",
      element("span", { class: "words" }, alert.text), alert.advice && element("span", { class: "advice" }, alert.advice)))));
}

function goTo({ step, path, of, figure: name }) {
  if (kinds.includes(of)) state.of = of;
  if (figuresOf(state.of).includes(name)) state.figure = name;
  state.chosen = [path];
  const room = Math.max(10, Math.round(last / 20));
  state.range = [Math.max(0, step - room), Math.min(last, step + room)];
  draw();
  byId("calls").scrollIntoView({ block: "nearest" });
}

function fillSelects() {
  byId("of").replaceChildren(...kinds.map((of) => element("option", { value: of, selected: of === state.of }, of)));
  byId("figure").replaceChildren(...figuresOf(state.of).map((name) => element("option", { value: name, selected: name === state.figure }, name)));
  byId("log").checked = state.log;
}

function draw() {
  fillSelects();
  drawLines();
  drawHeat();
  remember();
}

byId("of").addEventListener("change", () => {
  state.of = byId("of").value;
  state.figure = figuresOf(state.of).includes(state.figure) ? state.figure : figuresOf(state.of)[0];
  state.chosen = state.chosen.filter((path) => shown().some((each) => each.path === path));
  draw();
});
byId("figure").addEventListener("change", () => { state.figure = byId("figure").value; draw(); });
byId("log").addEventListener("change", () => { state.log = byId("log").checked; draw(); });
byId("search").addEventListener("input", () => { state.find = byId("search").value.trim(); state.at = 0; drawHeat(); });
byId("whole").addEventListener("click", () => { state.range = null; draw(); });
byId("heat").addEventListener("keydown", (event) => {
  const paths = rows();
  if (event.key === "ArrowDown") state.at = Math.min(paths.length - 1, state.at + 1);
  else if (event.key === "ArrowUp") state.at = Math.max(0, state.at - 1);
  else if (event.key === "Enter" || event.key === " ") { choose(paths[state.at], state.at); byId("heat").focus(); event.preventDefault(); return; }
  else return;
  event.preventDefault();
  drawHeat();
  byId(`row-${state.at}`).scrollIntoView({ block: "nearest" });
});
addEventListener("keydown", (event) => { if (event.key === "Escape" && state.range) { state.range = null; draw(); } });
addEventListener("resize", drawLines);
watchTheme(draw);
for (const each of document.querySelectorAll(".script-only")) each.hidden = false;
recall();
showAlerts();
draw();

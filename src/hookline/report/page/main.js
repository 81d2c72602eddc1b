// Builds the page.

const data = JSON.parse(byId("hookline-data").textContent);
const calls = readCalls(data);
const view = VIEWS[data.kind](data, calls);
const tree = new Tree(byId("tree"), { calls, columns: view.columns, className: view.className, label: `Calls of ${data.title}`, onChoose: show });
const onChoose = (call) => { tree.choose(call); byId("calls").scrollIntoView({ block: "nearest" }); };
const pictures = [
  view.flow && view.flow.calls.length ? new Flow(byId("flow"), { ...view.flow, onChoose }) : null,
  view.flame && calls.length ? new Flame(byId("flame"), { ...view.flame, calls, onChoose }) : null,
].filter(Boolean);

function show(call) {
  byId("details").replaceChildren(...[...detailsHead(call), ...view.details(call)].filter(Boolean));
  byId("details").scrollTop = 0;
  for (const picture of pictures) picture.showChosen(call);
}

function showMarks() {
  if (!data.marks.length) return;
  byId("marks").hidden = false;
  byId("marks-title").textContent = `${MARKS_TITLE[data.kind]} (${data.marks.length.toLocaleString("en-US")})`;
  byId("marks-list").append(...data.marks.map((mark) => {
    const { level, path, text, advice, call, rule } = mark;
    const name = call === null || (path ?? "") !== calls[call].path ? path || "(the model)" : fullName(calls[call]);
    const where = call === null ? element("span", { class: "where" }, name) : element("a", { class: "where", href: `#call-${call}` }, name);
    return element("li", { class: "mark" }, element("span", { class: `level level-${level}` }, levelSign(level)),
      element("div", {}, where, " ", element("span", { class: "words" }, text), adviceOf(advice, rule)));
  }));
}

function showLegend() {
  byId("legend").hidden = !view.legend?.length;
  byId("legend").append(...(view.legend ?? []).map(({ words, className }) => element("li", { class: className }, words)));
}

// Search: while you type only matching calls are shown, Enter goes to the next one, Escape shows all again.
let hits = [];
let place = -1; // the match that Enter went to last

function find() {
  const text = byId("search").value.trim();
  const meant = text ? matcher(text, data.aliases) : null;
  if (text && !meant) {
    byId("found").textContent = "this is not a glob";
    return;
  }
  hits = tree.find(meant);
  place = -1;
  byId("found").textContent = text ? `${hits.length.toLocaleString("en-US")} of ${count(calls.length, "call")}` : "";
}

function next(step) {
  if (!hits.length) return;
  const exact = hits.findIndex(({ path }) => path === byId("search").value.trim());
  place = place < 0 ? Math.max(0, exact) : (place + step + hits.length) % hits.length;
  tree.choose(hits[place]);
}

byId("search").addEventListener("input", find);
byId("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") next(event.shiftKey ? -1 : 1);
  else if (event.key === "Escape") { byId("search").value = ""; find(); tree.grid.focus(); }
  else if (event.key === "ArrowDown") { tree.grid.focus(); if (!tree.chosen) tree.choose(tree.rows[0]); }
  else return;
  event.preventDefault();
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input")) return;
  byId("search").focus();
  event.preventDefault();
});
tree.onLeave = () => { byId("search").value = ""; find(); };
tree.onEnter = () => byId("details").focus();
byId("details").addEventListener("keydown", (event) => event.key === "Escape" && tree.grid.focus());
byId("open-all").addEventListener("click", () => tree.turnAll(true));
byId("close-all").addEventListener("click", () => tree.turnAll(false));
addEventListener("resize", () => tree.arrange());

// A link to a call: #call-12.
function follow() {
  const number = /^#call-(\d+)$/.exec(location.hash)?.[1];
  if (number === undefined || !calls[number]) return false;
  onChoose(calls[number]);
  tree.grid.focus({ preventScroll: true });
  return true;
}

addEventListener("hashchange", follow);
document.addEventListener("click", (event) => event.target.closest(`a[href="${location.hash || "#"}"]`) && follow());

for (const each of document.querySelectorAll(".script-only")) each.hidden = false;
watchTheme();
showMarks();
showLegend();
tree.arrange();
if (!follow()) {
  const first = data.marks.find(({ call, level }) => call !== null && level !== "costly");
  if (first || calls.length) tree.choose(first ? calls[first.call] : calls[0]);
  else byId("details").append(element("p", { class: "nothing" }, "No call was recorded."));
}

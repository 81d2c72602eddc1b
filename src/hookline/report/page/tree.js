// The calls as a tree with columns. Only visible rows are in the page, however many there are.

const ROW_HEIGHT = 26, MORE_ROWS = 12, OPENED_AT_FIRST = 400, MOST_PRINTED = 5000;

class Tree {
  // `columns`: title, width in pixels, and `cell(call)`, which returns text or an element.
  constructor(place, { calls, columns, label, className, onChoose }) {
    Object.assign(this, { calls, columns, className, onChoose });
    this.open = new Set();
    this.matched = null; // the calls that were searched for, and those around them
    this.chosen = null;
    this.drawn = new Map(); // the rows in the page
    const widths = columns.map(({ width, grow }) => (grow ? `minmax(${width}px, ${grow}fr)` : `${width}px`)).join(" ");
    this.body = element("div", { class: "body", role: "rowgroup" });
    const titles = columns.map(({ title, right }, place) => element("div", { role: "columnheader", class: `cell${place ? "" : " name"}${right ? " right" : ""}` }, title));
    this.grid = element("div", { class: "tree", role: "treegrid", tabindex: 0, "aria-label": label, "aria-colcount": columns.length,
      style: `--columns:${widths};--width:${columns.reduce((all, { width }) => all + width, 8)}px`,
      onscroll: () => requestAnimationFrame(() => this.draw()), onkeydown: (event) => this.press(event), onclick: (event) => this.click(event) },
      element("div", { role: "rowgroup" }, element("div", { class: "row titles", role: "row" }, titles)), this.body);
    place.append(this.grid);
    this.openAtFirst();
    this.arrange();
    new ResizeObserver(() => this.draw()).observe(this.grid);
    addEventListener("beforeprint", () => { this.printing = true; this.redraw(); });
    addEventListener("afterprint", () => { this.printing = false; this.redraw(); });
  }

  // Open as many levels as fit a number of rows that one can look through.
  openAtFirst() {
    const levels = [];
    for (const call of this.calls) levels[call.depth] = (levels[call.depth] ?? 0) + 1;
    let [rows, depth] = [0, 0];
    while (depth < levels.length && rows + levels[depth] <= OPENED_AT_FIRST) rows += levels[depth++];
    for (const call of this.calls) if (call.children.length && call.depth < depth - 1) this.open.add(call);
  }

  // Compute the rows from what is open and what is searched for, and draw them.
  arrange() {
    this.rows = [];
    const add = (call) => {
      if (this.matched && !this.matched.has(call)) return;
      call.row = this.rows.push(call) - 1;
      if (this.isOpen(call)) call.children.forEach(add);
    };
    for (const call of this.calls) call.row = -1;
    for (const call of this.calls) if (!call.parent) add(call);
    this.body.style.height = `${this.rows.length * ROW_HEIGHT}px`;
    this.grid.style.height = `${Math.min(this.rows.length * ROW_HEIGHT + 44, Math.max(320, innerHeight - 150))}px`;
    this.grid.setAttribute("aria-rowcount", this.rows.length + 1);
    this.redraw();
  }

  // Redraw every row.
  redraw() {
    this.drawn.forEach((row) => row.remove());
    this.drawn = new Map();
    this.draw();
  }

  isOpen(call) {
    return call.children.length > 0 && (this.matched ? call.children.some((child) => this.matched.has(child)) && !this.shut?.has(call) : this.open.has(call));
  }

  draw() {
    const first = this.printing ? 0 : Math.max(0, Math.floor(this.grid.scrollTop / ROW_HEIGHT) - MORE_ROWS);
    const last = this.printing ? MOST_PRINTED : Math.ceil((this.grid.scrollTop + this.grid.clientHeight) / ROW_HEIGHT) + MORE_ROWS;
    const kept = this.drawn;
    this.drawn = new Map(this.rows.slice(first, last).map((call) => [call, kept.get(call) ?? this.row(call)]));
    for (const [call, row] of kept) if (!this.drawn.has(call)) row.remove();
    this.body.append(...[...this.drawn].filter(([call]) => !kept.has(call)).map(([, row]) => row));
    const shown = this.chosen && this.chosen.row >= first && this.chosen.row < last;
    if (shown) this.grid.setAttribute("aria-activedescendant", `row-${this.chosen.number}`);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  row(call) {
    const open = this.isOpen(call);
    const style = ["row", this.className(call), call === this.chosen && "chosen", this.hits?.has(call) && "found"].filter(Boolean).join(" ");
    return element("div", {
      class: style, role: "row", id: `row-${call.number}`, style: `top:${call.row * ROW_HEIGHT}px`,
      "aria-level": call.depth + 1, "aria-rowindex": call.row + 2, "aria-selected": String(call === this.chosen),
      "aria-expanded": call.children.length ? String(open) : null,
      "aria-setsize": call.parent?.children.length, "aria-posinset": call.parent ? call.place + 1 : null,
    }, this.columns.map((column, place) => place ? this.cell(column, call) : this.nameCell(call, open)));
  }

  nameCell(call, open) {
    const twist = element("span", { class: "twist", "aria-hidden": true }, call.children.length ? (open ? "▾" : "▸") : "");
    const words = element("span", { class: "words" }, shortName(call), call.index ? element("span", { class: "index" }, ` #${call.index}`) : "");
    const again = call.recompute ? element("span", { class: "again" }, " recomputed") : null;
    const flags = call.marks.slice(0, 1).map(({ level }) => element("span", { class: `flag level-${level}`, title: level }, levelSign(level)));
    return element("div", { class: "cell name", role: "gridcell", style: `padding-left:min(${4 + Math.min(call.depth, 12) * 14}px, 45%)`, title: fullName(call) }, twist, words, again, flags);
  }

  cell({ cell, right, size, style }, call) {
    const given = cell(call);
    const share = size?.(call);
    const bar = isFiniteNumber(share) && share > 0 ? element("span", { class: `size ${style ?? ""}`, style: `width:calc((100% - 6px)*${share.toFixed(3)})` }) : null;
    return element("div", { class: `cell${right ? " right" : ""}`, role: "gridcell", title: typeof given === "string" && given.length > 8 ? given : null }, bar, given instanceof Node ? given : element("span", { class: "value" }, given));
  }

  // Choose a call: open the calls around it, scroll to it, and notify the listeners.
  choose(call, { scroll = true } = {}) {
    if (!call) return;
    this.chosen = call;
    if (call.row < 0) {
      if (this.matched && !this.matched.has(call)) this.onLeave();
      around(call).forEach((above) => (this.open.add(above), this.shut?.delete(above)));
      this.arrange();
    }
    if (scroll) this.bringIntoSight(call);
    this.redraw();
    this.onChoose(call);
  }

  bringIntoSight(call) {
    const top = call.row * ROW_HEIGHT;
    const room = this.grid.clientHeight - ROW_HEIGHT * 2;
    if (top < this.grid.scrollTop) this.grid.scrollTop = Math.max(0, top - ROW_HEIGHT);
    else if (top > this.grid.scrollTop + room) this.grid.scrollTop = top - room + ROW_HEIGHT;
  }

  // Show only the calls for which `meant` is true and those around them, or all for null. Returns the matching calls.
  find(meant) {
    this.hits = meant ? new Set(this.calls.filter(meant)) : null;
    this.matched = this.hits && new Set([...this.hits].flatMap((call) => [call, ...around(call)]));
    this.shut = new Set();
    this.arrange();
    return this.hits ? [...this.hits] : [];
  }

  turn(call, open) {
    if (!call.children.length) return;
    if (this.matched) open ? this.shut.delete(call) : this.shut.add(call);
    else open ? this.open.add(call) : this.open.delete(call);
    this.arrange();
    this.chooseWhatIsSeen();
  }

  turnAll(open) {
    this.open = new Set(open ? this.calls.filter((call) => call.children.length) : []);
    this.shut = new Set(open ? [] : this.matched ?? []);
    this.arrange();
    this.chooseWhatIsSeen();
  }

  // If a call was closed around the chosen one, choose that call.
  chooseWhatIsSeen() {
    if (this.chosen && this.chosen.row < 0) this.choose(around(this.chosen).findLast(({ row }) => row >= 0), { scroll: false });
  }

  click(event) {
    const row = event.target.closest(".body .row");
    if (!row) return;
    const call = this.calls[Number(row.id.slice(4))];
    if (event.target.closest(".twist") && call.children.length) this.turn(call, !this.isOpen(call));
    else this.choose(call, { scroll: false });
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const call = this.chosen && this.chosen.row >= 0 ? this.chosen : null;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / ROW_HEIGHT) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      const place = call ? Math.min(this.rows.length - 1, Math.max(0, call.row + steps[event.key])) : event.key === "End" ? this.rows.length - 1 : 0;
      this.choose(this.rows[place]);
    } else if (!call) return;
    else if (event.key === "ArrowRight") this.isOpen(call) ? this.choose(this.rows[call.row + 1]) : this.turn(call, true);
    else if (event.key === "ArrowLeft") this.isOpen(call) ? this.turn(call, false) : this.choose(call.parent);
    else if (event.key === "Enter") this.onEnter?.(call);
    else return;
    event.preventDefault();
  }
}

// Each level has its own sign besides its colour.
function levelSign(level) {
  return { error: "✖ error", warning: "▲ warning", note: "● note", culprit: "◆ culprit", differs: "≠ differs", costly: "◷ costly" }[level] ?? level;
}

// The flame graph: each call is a block as wide as its time, with the calls inside it below.

const LEVEL = 18, LEAST = 0.5, GAP = 6;
const FILLS = 8;

class Flame extends Picture {
  // `halves`: name and size of a call for each half; the second half is below the first.
  constructor(section, { title, label, calls, halves, unit, onChoose }) {
    super(section, { title, label, height: 100 });
    Object.assign(this, { calls, unit, onChoose });
    this.svg.classList.add("flame");
    this.place.classList.add("flame-scroll");
    this.halves = halves.map((half) => ({ ...half, blocks: laidOut(calls, half.size) })).filter(({ blocks }) => blocks.length);
    this.whole = largest(this.halves.flatMap(({ blocks }) => blocks.map(({ from, size }) => from + size)));
    this.view = [0, this.whole];
    this.zoomIn = element("button", { type: "button", disabled: true, onclick: () => this.zoom(this.chosen) }, "Zoom to chosen");
    this.zoomOut = element("button", { type: "button", disabled: true, onclick: () => this.zoom(null) }, "Whole");
    this.head.append(element("div", { class: "buttons" }, this.zoomIn, this.zoomOut));
    this.classes = new Map([...new Set(calls.map((call) => call.class))].map((name, place) => [name, place % FILLS]));
  }

  zoom(call) {
    const block = call && this.halves.flatMap(({ blocks }) => blocks).find((each) => each.call === call && each.size > 0);
    this.view = block ? [block.from, block.from + block.size] : [0, this.whole];
    this.zoomOut.disabled = !block;
    this.draw();
  }

  draw() {
    this.drawn = [];
    let top = 0;
    const made = [];
    for (const { name, blocks } of this.halves) {
      const shown = blocks.map((block) => this.placed(block, top + 14)).filter(Boolean);
      made.push(shape("text", { x: 2, y: top + 10 }, name));
      made.push(...shown.map((each) => this.block(each)));
      this.drawn.push(...shown);
      top = Math.max(top + 14, largest(shown.map(({ y }) => y + LEVEL))) + GAP;
    }
    this.height = top;
    this.svg.setAttribute("height", top);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${top}`);
    this.chosenBox = shape("g");
    this.hereBox = shape("g");
    this.svg.replaceChildren(...made, this.chosenBox, this.hereBox);
    this.showChosen(this.chosen);
  }

  placed({ call, from, size, level }, top) {
    const [begin, end] = this.view;
    const scale = this.width / (end - begin || 1);
    const [left, right] = [Math.max(0, (from - begin) * scale), Math.min(this.width, (from + size - begin) * scale)];
    return right - left >= LEAST ? { call, x: left, y: top + level * LEVEL, width: right - left } : null;
  }

  block({ call, x, y, width }) {
    const rect = shape("rect", { x: x.toFixed(2), y, width: width.toFixed(2), height: LEVEL - 1, rx: 2, style: `fill:var(--fill-${this.classes.get(call.class)})` });
    const most = Math.floor((width - 6) / 6.3);
    const name = shortName(call) + (call.index ? ` #${call.index}` : "");
    if (most < 3) return rect;
    return shape("g", {}, rect, shape("text", { x: (x + 4).toFixed(1), y: y + 12.5 }, name.length > most ? `${name.slice(0, most - 1)}…` : name));
  }

  callAt(x, y) {
    return this.drawn.find((each) => x >= each.x && x < each.x + each.width && y >= each.y && y < each.y + LEVEL)?.call ?? null;
  }

  order() {
    return [...new Set(this.drawn.map(({ call }) => call))];
  }

  spot(call) {
    const { x, y } = this.drawn.find((each) => each.call === call) ?? { x: 0, y: 0 };
    return [x, y + this.head.offsetHeight];
  }

  words(call) {
    return this.halves.map(({ name, size }) => `${name} ${this.unit(size(call))}`).join("\n");
  }

  outline(group, call, style) {
    const own = this.drawn.filter((each) => each.call === call);
    group.replaceChildren(...own.map(({ x, y, width }) => shape("rect", { x, y, width, height: LEVEL - 1, rx: 2, class: style, style: "fill:none" })));
  }

  showHere() {
    if (this.drawn) this.outline(this.hereBox, this.here, "hover");
  }

  showChosen(call) {
    this.chosen = call;
    this.zoomIn.disabled = !call;
    if (this.drawn) this.outline(this.chosenBox, call, "chosen");
  }
}

// Each call with where it begins, how much it took and how deep it lies. Outermost calls follow one another without a
// gap; those inside begin where they did, or one after the other where that is not known.
function laidOut(calls, size) {
  const blocks = new Map();
  const ends = new Map();
  let end = 0;
  for (const call of calls) {
    const took = size(call);
    if (!isFiniteNumber(took) || took <= 0) continue;
    const above = call.parent && blocks.get(call.parent);
    if (call.parent && !above) continue;
    const after = above ? ends.get(call.parent) ?? above.from : end;
    const began = above && isFiniteNumber(call.began) ? above.from + (call.began - call.parent.began) : after;
    const from = above ? Math.max(after, Math.min(began, above.from + above.size - took)) : end;
    const block = { call, from, size: above ? Math.min(took, Math.max(0, above.from + above.size - from)) : took, level: above ? above.level + 1 : 0 };
    blocks.set(call, block);
    if (above) ends.set(call.parent, from + block.size);
    else end = from + block.size;
  }
  return [...blocks.values()];
}

// A figure of each call along the order of calls, on a logarithmic axis.

const EDGE = { left: 52, right: 10, top: 10, bottom: 22 };
const SERIES = [{ style: "one", dot: 4.5 }, { style: "two", dot: 4.5 }];

class Flow extends Picture {
  // `series`: name and value of each line; `marked`: calls with a line of their own and a word.
  constructor(section, { title, label, series, calls, marked, onChoose }) {
    super(section, { title, label, height: 190 });
    Object.assign(this, { series, marked, onChoose });
    this.points = calls.filter((call) => series.some(({ value }) => value(call) !== null));
    this.rank = new Map(this.points.map((call, place) => [call, place]));
    this.head.append(element("div", { class: "legend" }, series.map((each, place) => this.legend(each, place))));
  }

  legend({ name }, place) {
    return element("span", {}, shape("svg", { "aria-hidden": true, viewBox: "0 0 14 10" }, shape("path", { d: this.dot(7, 5, place), class: `${SERIES[place].style} dots`, "stroke-width": this.dotSize(place) })), name);
  }

  // A round dot for the first line and a plus for the second, so that colour is not the only difference.
  dot(x, y, place) {
    return place ? `M${x - 3.2} ${y}h6.4M${x} ${y - 3.2}v6.4` : `M${x} ${y}h0`;
  }

  dotSize(place) {
    return place ? 1.6 : 5;
  }

  draw() {
    const values = this.series.flatMap(({ value }) => this.points.map(value)).filter((value) => isFiniteNumber(value) && value > 0);
    const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
    const known = values.length > 0;
    this.low = known ? Math.log10(low) : -1;
    this.high = known ? Math.log10(high) : 1;
    const room = Math.max(0.15, (this.high - this.low) * 0.06);
    this.low -= room;
    this.high += room;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.replaceChildren(...this.axes(), ...this.marked.map((each, place) => this.markLine(each, place)), ...this.series.flatMap((each, place) => this.lineOf(each, place)));
    this.hereLine = shape("path", { class: "here" });
    this.chosenLine = shape("path", { class: "chosen-here" });
    this.svg.append(this.chosenLine, this.hereLine);
    this.showChosen(this.chosen);
  }

  x(call) {
    return EDGE.left + ((this.rank.get(call) + 0.5) / this.points.length) * (this.width - EDGE.left - EDGE.right);
  }

  y(value) {
    const share = (Math.log10(value) - this.low) / (this.high - this.low);
    return this.height - EDGE.bottom - share * (this.height - EDGE.top - EDGE.bottom);
  }

  // Zero is at the bottom, values that are not finite at the top.
  height_of(value) {
    if (!isFiniteNumber(value)) return EDGE.top;
    return value > 0 ? this.y(value) : this.height - EDGE.bottom;
  }

  lineOf({ value }, place) {
    const { style } = SERIES[place];
    let line = "", dots = "", crosses = "";
    for (const call of this.points) {
      const found = value(call);
      if (found === null) continue;
      const [x, y] = [this.x(call).toFixed(1), this.height_of(found).toFixed(1)];
      line += `${line ? "L" : "M"}${x} ${y}`;
      if (isFiniteNumber(found)) dots += this.dot(Number(x), Number(y), place);
      else crosses += `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`;
    }
    const few = this.points.length <= 1500;
    return [
      shape("path", { d: line, class: `line ${style}` }),
      few ? shape("path", { d: dots, class: `dots ${style}`, "stroke-width": this.dotSize(place) }) : null,
      crosses ? shape("path", { d: crosses, class: "cross bad" }) : null,
    ].filter(Boolean);
  }

  axes() {
    const floor = this.height - EDGE.bottom;
    const made = [shape("path", { class: "grid", d: `M${EDGE.left} ${EDGE.top}V${floor}H${this.width - EDGE.right}` })];
    for (const value of ticks(this.low, this.high)) {
      const y = this.y(value);
      made.push(shape("path", { class: "grid", d: `M${EDGE.left} ${y.toFixed(1)}H${this.width - EDGE.right}` }));
      made.push(shape("text", { x: EDGE.left - 6, y: y + 3.5, "text-anchor": "end" }, figure(value)));
    }
    const last = this.points.length - 1;
    for (const place of new Set(this.width < 520 ? [0, last] : [0, Math.round(last / 2), last])) {
      const call = this.points[place];
      if (!call) continue;
      const anchor = place === 0 ? "start" : place === last ? "end" : "middle";
      made.push(shape("text", { x: place === 0 ? EDGE.left : place === last ? this.width - EDGE.right : this.x(call), y: this.height - 6, "text-anchor": anchor }, clipped(fullName(call), 28)));
    }
    return made;
  }

  markLine({ call, word }, place) {
    if (!this.rank.has(call)) return "";
    const x = this.x(call);
    const end = x > this.width / 2;
    return shape("g", {}, shape("path", { class: "culprit-here", d: `M${x} ${EDGE.top}V${this.height - EDGE.bottom}` }), shape("text", { class: "culprit-word", x: x + (end ? -5 : 5), y: EDGE.top + 9 + (place % 3) * 13, "text-anchor": end ? "end" : "start" }, clipped(word, 40)));
  }

  callAt(x) {
    const place = Math.floor(((x - EDGE.left) / (this.width - EDGE.left - EDGE.right)) * this.points.length);
    return this.points[Math.min(this.points.length - 1, Math.max(0, place))] ?? null;
  }

  order() {
    return this.points;
  }

  spot(call) {
    return [this.x(call), this.head.offsetHeight + this.height / 3];
  }

  words(call) {
    return this.series.map(({ name, value }) => `${name} ${figure(value(call)) || "unknown"}`).join("\n");
  }

  showHere() {
    this.hereLine?.setAttribute("d", this.here ? `M${this.x(this.here)} ${EDGE.top}V${this.height - EDGE.bottom}` : "");
  }

  showChosen(call) {
    this.chosen = call;
    const at = call && (this.rank.has(call) ? call : null);
    this.chosenLine?.setAttribute("d", at ? `M${this.x(at)} ${EDGE.top}V${this.height - EDGE.bottom}` : "");
  }
}

// Round numbers between two powers of ten: the powers, or 1, 2 and 5 times these if there are few.
function ticks(low, high) {
  const powers = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) powers.push(power);
  const step = Math.max(1, Math.ceil(powers.length / 6));
  const parts = powers.length <= 3 ? [1, 2, 5] : [1];
  const found = powers.filter((power) => power % step === 0).flatMap((power) => parts.map((part) => part * 10 ** power));
  return found.filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
}

function clipped(text, most) {
  return text.length > most ? `…${text.slice(1 - most)}` : text;
}

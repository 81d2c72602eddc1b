// The base of both pictures: a drawing as wide as its section, a tooltip at the pointer, and keys to move along it.

class Picture {
  constructor(section, { title, label, height }) {
    section.hidden = false;
    section.querySelector("h2").textContent = title;
    this.section = section;
    this.height = height;
    this.here = null; // the call at the pointer
    this.svg = shape("svg", { class: "picture", role: "application", tabindex: 0, "aria-label": label, height });
    this.tip = element("div", { class: "tip", role: "status", hidden: true });
    this.head = element("div", { class: "chart-head" });
    this.place = element("div", { class: "picture-place" }, this.svg);
    section.querySelector("h2").replaceWith(this.head);
    this.head.append(element("h2", { id: `${section.id}-title` }, title));
    section.append(this.place, this.tip);
    this.svg.addEventListener("pointermove", (event) => this.point(this.callAt(...this.inside(event)), event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("click", (event) => this.choose(this.callAt(...this.inside(event))));
    this.svg.addEventListener("keydown", (event) => this.press(event));
    this.svg.addEventListener("blur", () => this.point(null));
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  resize() {
    const width = Math.max(200, Math.floor(this.place.clientWidth));
    if (width === this.width) return;
    this.width = width;
    this.draw();
  }

  inside(event) {
    const box = this.svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // Show the tooltip of a call, at the pointer if there is one.
  point(call, event = null) {
    this.here = call;
    this.showHere();
    this.tip.hidden = !call;
    if (!call) return;
    this.tip.textContent = `${fullName(call)} · ${call.class}\n${this.words(call)}`;
    const box = this.section.getBoundingClientRect();
    const [x, y] = event ? [event.clientX - box.left, event.clientY - box.top] : this.spot(call);
    const left = x + 14 + this.tip.offsetWidth > box.width ? Math.max(4, x - this.tip.offsetWidth - 14) : x + 14;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${y + 14}px`;
  }

  choose(call) {
    if (call) this.onChoose(call);
  }

  press(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      const order = this.order();
      const place = order.indexOf(this.here ?? this.chosen);
      this.point(order[Math.min(order.length - 1, Math.max(0, place + step))] ?? null);
    } else if (event.key === "Home" || event.key === "End") this.point(this.order().at(event.key === "Home" ? 0 : -1) ?? null);
    else if (event.key === "Enter" || event.key === " ") this.choose(this.here);
    else if (event.key === "Escape") this.point(null);
    else return;
    event.preventDefault();
  }
}

// The details of the chosen call: its class and place, its marks, and its tensors.

function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return element("dl", {}, known.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function saidOf(call) {
  return call.marks.map(({ level, text, advice, rule }) =>
    element("div", { class: `said level-${level}` }, levelSign(level), element("span", { class: "words" }, ` ${text}`), adviceOf(advice, rule)));
}

function adviceOf(advice, rule) {
  return advice || rule ? element("span", { class: "advice" }, [advice, rule && `[${rule}]`].filter(Boolean).join(" ")) : null;
}

function detailsHead(call) {
  const above = around(call);
  return [
    element("div", {}, element("h3", { class: "title" }, fullName(call)), element("p", { class: "crumbs" }, call.class, above.length ? " inside " : "",
      above.slice(-1).map((each) => element("a", { href: `#call-${each.number}` }, fullName(each))))),
    ...saidOf(call),
  ];
}

// The placement of a distributed tensor, and the shape of its part in this run's process.
function lies({ placement, local_shape }) {
  return placement ? ` ${placement.join(" ")}${local_shape ? `, [${local_shape.join(", ")}] in this process` : ""}` : "";
}

// A tensor of a run: its kind, its figures and its histogram; then the same for its gradient.
function tensorCard(tensor, fallback) {
  const device = tensor.device === "cpu" ? "" : ` on ${tensor.device}`;
  return element("div", { class: "tensor" },
    element("div", {}, element("code", {}, tensor.name || fallback), ` ${tensor.dtype} [${tensor.shape.join(", ")}]${device}${lies(tensor)}${tensor.requires_grad ? ", requires a gradient" : ""}`),
    tensor.stats ? [figuresOf(tensor.stats), histogramOf(tensor.stats, "one")] : null,
    tensor.grad ? element("div", {}, element("h3", {}, `its gradient${lies(tensor.grad)}`), figuresOf(tensor.grad), histogramOf(tensor.grad, "two")) : null);
}

function figuresOf(stats) {
  if (stats.count === null || stats.count === undefined) return null;
  const shown = [["mean", figure(stats.mean)], ["std", figure(stats.std)], ["absmax", figure(absmax(stats))], ["min", figure(stats.min)], ["max", figure(stats.max)], ["norm", figure(stats.norm)],
    ["zeros", percent(stats.zeros)], ["NaN", stats.nan || ""], ["Inf", stats.inf || ""]];
  return element("div", { class: "figures" }, shown.filter(([, value]) => value !== "").map(([name, value]) => element("div", {}, element("span", {}, `${name} `), String(value))));
}

// The number of elements in each bin, with a logarithmic height that keeps few outliers visible.
function histogramOf({ histogram, min, max }, style) {
  if (!histogram) return null;
  const most = Math.log1p(Math.max(...histogram));
  const width = 100 / histogram.length;
  const bars = histogram.map((many, place) => {
    const height = many ? Math.max(1.5, (Math.log1p(many) / most) * 40) : 0;
    return shape("rect", { x: place * width + 0.2, y: 40 - height, width: width - 0.4, height });
  });
  const zero = min < 0 && max > 0 ? shape("line", { class: "zero", x1: (-min / (max - min)) * 100, x2: (-min / (max - min)) * 100, y1: 0, y2: 40, "vector-effect": "non-scaling-stroke" }) : null;
  const label = `Histogram from ${figure(min)} to ${figure(max)}: ${histogram.join(", ")}`;
  return element("div", {}, shape("svg", { class: `histogram ${style}`, viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label }, bars, zero),
    element("div", { class: "ends" }, element("span", {}, figure(min)), element("span", {}, "count, log scale"), element("span", {}, figure(max))));
}

// The same in the size of a cell; without a histogram, a range with its mean.
function spark(stats) {
  if (!stats) return "";
  const made = shape("svg", { class: "spark", viewBox: "0 0 96 20", preserveAspectRatio: "none", "aria-hidden": true });
  if (stats.histogram) {
    const most = Math.log1p(Math.max(...stats.histogram));
    const width = 96 / stats.histogram.length;
    made.append(shape("path", { d: stats.histogram.map((many, place) => many ? `M${(place * width).toFixed(1)} 19v${(-Math.max(1, (Math.log1p(many) / most) * 17)).toFixed(1)}h${(width - 0.6).toFixed(1)}V19z` : "").join("") }));
    return made;
  }
  const { min, max, mean, std } = stats;
  if (![min, max, mean, std].every(isFiniteNumber) || max <= min) return "";
  const x = (value) => Math.min(95, Math.max(1, ((value - min) / (max - min)) * 96));
  made.append(shape("line", { x1: 1, x2: 95, y1: 10, y2: 10, "stroke-width": 1 }), shape("path", { d: `M${x(mean - std).toFixed(1)} 7H${x(mean + std).toFixed(1)}v6H${x(mean - std).toFixed(1)}z` }),
    shape("line", { x1: x(mean), x2: x(mean), y1: 4, y2: 16, "stroke-width": 2 }));
  return made;
}

function tensorSection(title, tensors, fallback) {
  return tensors.length ? element("div", {}, element("h3", {}, title), tensors.map((tensor) => tensorCard(tensor, fallback))) : null;
}

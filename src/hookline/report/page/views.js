// The views of each kind of page: the columns of its tree, its pictures, and the details of a call.

const VIEWS = { run: runView, check: runView, diff: diffView, profile: profileView };
const MARKS_TITLE = { run: "To look at", check: "Findings", diff: "Differences", profile: "Most expensive modules" };

function runView(data, calls) {
  for (const call of calls) {
    call.took = call.inputs.map((row) => readTensor(data, row));
    call.gave = call.outputs.map((row) => readTensor(data, row));
  }
  const first = (call) => call.gave[0] ?? null;
  const stat = (name) => (call) => first(call)?.stats?.[name] ?? null;
  const magnitude = (call) => (first(call)?.stats ? absmax(first(call).stats) : null);
  const norm = (grad) => (grad && typeof grad.norm !== "undefined" ? grad.norm : null);
  const gradNorm = (call) => norm(first(call)?.grad);
  const ofInput = (call) => norm(call.took.find(({ grad }) => grad)?.grad);
  const scale = (call) => rms(first(call)?.stats);
  const measured = calls.some((call) => call.gave.some(({ stats }) => stats));
  const graded = calls.some((call) => gradNorm(call) !== null);
  const leaves = calls.filter((call) => !call.children.length);
  const whole = largest(calls.map(({ seconds }) => seconds));
  const texts = (tensors) => tensors.slice(0, 2).map(shapeText).join(" ") + (tensors.length > 2 ? ` +${tensors.length - 2}` : "");
  const room = calls.some((call) => [...call.took, ...call.gave].some(({ placement }) => placement)) ? 150 : 80;
  const again = calls.some(({ recompute }) => recompute);
  const sized = (value, style) => ({ right: true, size: onLog(calls, value), style });
  const values = (call) => unfinite(first(call)?.stats) || spark(first(call)?.stats);
  return {
    columns: [
      { title: "call", width: 190, grow: 3 },
      { title: "class", width: 100, grow: 1, cell: (call) => call.class },
      { title: "in", width: room, grow: 1, cell: (call) => texts(call.took) },
      { title: "out", width: room, grow: 1, cell: (call) => (call.error ? `raised ${call.error}` : texts(call.gave)) },
      { title: "ms", width: 56, right: true, cell: (call) => milliseconds(call.seconds), size: ({ seconds }) => seconds / whole },
      ...(measured ? [
        { title: "values", width: 78, cell: values },
        { title: "mean", width: 86, right: true, cell: (call) => figure(stat("mean")(call)) },
        { title: "std", width: 76, ...sized(stat("std")), cell: (call) => figure(stat("std")(call)) },
        { title: "absmax", width: 76, ...sized(magnitude), cell: (call) => figure(magnitude(call)) },
        { title: "zeros", width: 52, right: true, cell: (call) => percent(stat("zeros")(call)), size: (call) => stat("zeros")(call) || 0 }] : []),
      ...(graded ? [{ title: "grad norm", width: 80, ...sized(gradNorm, "two"), cell: (call) => figure(gradNorm(call)) }] : []),
      ...(calls.some((call) => ofInput(call) !== null) ? [{ title: "of input", width: 80, ...sized(ofInput, "two"), cell: (call) => figure(ofInput(call)) }] : []),
    ],
    className: (call) => (call.error ? "failed" : ""),
    flow: measured && {
      title: "Scale by call order",
      label: "Activation scale and gradient norm by call order, log axis. Arrow keys go from call to call, Enter goes to one.",
      series: [{ name: "rms of the output", value: scale }, ...(graded ? [{ name: "gradient norm", value: gradNorm }] : [])],
      calls: leaves,
      marked: [],
    },
    flame: {
      title: "Time of the forward", label: "Time of each call of the forward. Arrow keys go from call to call, Enter goes to one.",
      halves: [{ name: "forward", size: ({ recompute, seconds }) => (recompute ? 0 : seconds) }, ...(again ? [{ name: "recomputed", size: ({ recompute, seconds }) => (recompute ? seconds : 0) }] : [])],
      unit: (seconds) => `${milliseconds(seconds)} ms`,
    },
    details: (call) => [
      facts([["time", `${milliseconds(call.seconds)} ms, ${milliseconds(call.began)} ms after the start`], ["mode", call.training ? "train" : "eval"],
        ["thread", call.thread ? String(call.thread) : ""], ["raised", call.error], ["recomputed", whyAgain(call)]]),
      tensorSection("outputs", call.gave, "output"),
      tensorSection("inputs", call.took, "input"),
    ],
  };
}

// The figures of a difference, with the column names of the table in the terminal.
const COMPARED = [["max abs", "absolute"], ["max rel", "relative"], ["error", "error"], ["snr dB", "snr"], ["ulps", "ulps"]];

// The states of calls whose difference does not count, and the words for them.
const EXCUSED = { shape: "≈ other shape, not compared", rounding: "≈ explained by rounding" };

// The words for the rows of a diff, each with its states.
const STATES = [["≠ differs", "differs", "culprit"], ...Object.entries(EXCUSED).map(([state, words]) => [words, state]), ["the same", "same"]];

function styleOf(state) {
  return EXCUSED[state] ? "same excused" : state === "same" ? "same" : "differs";
}

function diffView(data, calls) {
  const read = ([name, kinds, state, ...figures]) => ({ name, kinds: kinds.map((kind) => (kind === null ? null : withNames(data.columns.kind, data.kinds[kind]))), state, ...withNames(data.columns.tensor.slice(3), figures) });
  for (const call of calls) for (const part of ["inputs", "outputs", "grads", "grad_inputs", "buffers"]) call[part] = call[part].map(read);
  const differing = (tensors) => tensors.some(({ state }) => state === "differs");
  const shown = (call) => [call.outputs, call.buffers, [...call.grads, ...call.grad_inputs]].find(differing) ?? call.outputs;
  const worst = (call) => shown(call).reduce((most, each) => (!most || rank(each) > rank(most) ? each : most), null);
  const of = (name) => (call) => worst(call)?.[name] ?? null;
  const error = (tensors) => tensors.map(({ state, error, nan }) => (nan ? "nan" : error === "nan" && state !== "differs" ? null : error)).filter((each) => each !== null).reduce((most, each) => (most === null || each === "nan" || each > most ? each : most), null);
  const [outputError, gradError] = [(call) => error(call.outputs), (call) => error(call.grads)];
  return {
    columns: [
      { title: "call", width: 190, grow: 3 },
      { title: "class", width: 100, grow: 1, cell: (call) => (call.class === call.class_b ? call.class : `${call.class} | ${call.class_b}`) },
      ...COMPARED.map(([title, name]) => ({ title, width: name === "snr" ? 62 : 88, right: true, cell: (call) => known(of(name)(call)), ...(name === "error" ? { size: onLog(calls, of("error")), style: "two" } : {}) })),
      { title: "out/in", width: 64, right: true, cell: ({ amplification }) => known(amplification) },
      { title: "why", width: 200, grow: 5, cell: ({ verdict, state }) => verdict || EXCUSED[state] || "" },
    ],
    className: ({ state }) => styleOf(state),
    legend: calls.some(({ state }) => EXCUSED[state]) ? STATES.filter(([, ...states]) => calls.some(({ state }) => states.includes(state))).map(([words, state]) => ({ words, className: styleOf(state) })) : [],
    flow: {
      title: "Error by call order", label: "Relative error of the outputs and gradients by call order, log axis. Arrow keys go from call to call, Enter goes to one.",
      series: [{ name: "error of the output, as a share of its norm", value: outputError }, ...(calls.some((call) => gradError(call) !== null) ? [{ name: "error of its gradient", value: gradError }] : [])],
      calls: calls.filter((call) => !call.children.length || call.state === "culprit"),
      marked: data.marks.filter(({ level, call }) => level === "culprit" && call !== null).slice(0, 8).map(({ call }) => ({ call: calls[call], word: `◆ ${calls[call].path || "the model"}` })),
    },
    details: (call) => [
      facts([["state", EXCUSED[call.state] ?? call.state], ["why", call.why], ["partner", call.path_b === call.path ? "" : call.path_b || "(the model)"], ["out/in", known(call.amplification)]]),
      ...[["outputs", "outputs"], ["inputs", "inputs"], ["gradients of the outputs", "grads"], ["gradients of the inputs", "grad_inputs"], ["buffers that it changed", "buffers"]].map(([title, part]) =>
        call[part].length ? element("div", {}, element("h3", {}, title), call[part].map((each) => differenceCard(each, part === "inputs" || part === "outputs" ? call.state : ""))) : null),
    ],
  };
}

function differenceCard(difference, state) {
  const sides = difference.kinds.map((kind) => (kind ? `${kind.dtype} [${kind.shape.join(", ")}]` : "nothing"));
  const shown = [...COMPARED, ["cosine", "cosine"], ["beyond tolerance", "beyond"]].map(([title, name]) => [title, known(difference[name])]).concat([["NaN or Inf on one side", known(difference.nan || null)]]).filter(([, text]) => text !== "");
  const differs = difference.state === "differs" && !EXCUSED[state];
  return element("div", { class: "tensor" },
    element("div", {}, difference.name ? [element("code", {}, difference.name), " "] : "", difference.text || (sides[0] === sides[1] ? sides[0] : sides.join(" vs "))),
    element("div", { class: `level-${differs ? "differs" : "note"}` }, differs ? "≠ differs" : difference.state === "differs" ? EXCUSED[state] : difference.state),
    difference.state === "identical" ? null : element("div", { class: "figures" }, shown.map(([title, text]) => element("div", {}, element("span", {}, `${title} `), text))));
}

function profileView(data, calls) {
  const whole = calls.filter((call) => !call.parent).reduce((all, call) => all + (call.forward ?? 0) + (call.backward ?? 0), 0);
  const self = (call) => (call.forward_self || 0) + (call.backward_self || 0);
  const flops = calls.filter((call) => !call.parent).reduce((all, { flops }) => all + (isFiniteNumber(flops) ? flops : 0), 0);
  const most = (name) => largest(calls.map((call) => (isFiniteNumber(call[name]) ? call[name] : 0))) || 1;
  const times = (name) => (call) => (isFiniteNumber(call[name]) ? (call[name] >= 5e-6 ? milliseconds(call[name]) : "0") : "");
  const sized = (name) => { const whole = most(name); return (call) => (isFiniteNumber(call[name]) ? call[name] / whole : 0); };
  const time = (title, name, width = 72) => ({ title, width, right: true, cell: times(name) });
  const timed = data.timed ? [time("forward ms", "forward", 84), time("self", "forward_self", 50), time("±", "forward_spread", 50)] : [];
  const back = data.timed && data.backward ? [time("backward ms", "backward", 92), time("self", "backward_self", 50)] : [];
  const share = data.timed ? [{ title: "share", width: 52, right: true, cell: (call) => percent(whole ? self(call) / whole : 0), size: (call) => (whole ? self(call) / whole : 0) }] : [];
  const operations = (call, name) => (call[name] === "nan" || (call.uncounted && !call[name]) ? "?" : call[name] ? `${call.uncounted ? ">" : ""}${engineering(call[name]).trim()}` : "");
  const counted = (title, name) => ({ title, width: 68, right: true, cell: (call) => operations(call, name), size: sized(name) });
  const amount = (title, name, unit) => ({ title, width: 66, right: true, cell: (call) => (call[name] ? `${engineering(call[name])}${unit}`.trim() : ""), size: sized(name), style: "two" });
  return {
    columns: [
      { title: "module", width: 180, grow: 3 },
      { title: "class", width: 98, grow: 1, cell: (call) => call.class },
      ...timed, ...back, ...share,
      counted("FLOP", "flops"), ...(data.backward ? [counted("back", "backward_flops")] : []),
      { title: "FLOP/B", width: 58, right: true, cell: ({ intensity }) => (isFiniteNumber(intensity) ? figure(intensity, 3) : "") },
      ...(data.backward ? [amount("kept", "kept", "B")] : []), amount("params", "parameters", ""),
    ],
    className: () => "",
    flame: data.timed ? {
      title: "Time, forward and backward", label: "Time of each call, forward and backward. Arrow keys go from call to call, Enter goes to one.",
      halves: [{ name: "forward", size: (call) => call.recompute ? 0 : call.forward }, ...(data.backward ? [{ name: "backward", size: ({ backward }) => backward }] : [])], unit: (seconds) => `${milliseconds(seconds)} ms`,
    } : {
      title: "FLOPs of the forward", label: "FLOPs of each call. Arrow keys go from call to call, Enter goes to one.",
      halves: [{ name: "FLOPs", size: ({ flops }) => flops }], unit: (many) => `${engineering(many)}FLOP`,
    },
    details: (call) => [
      facts([
        ["forward", data.timed ? `${times("forward")(call)} ms, ${times("forward_self")(call)} self, ± ${times("forward_spread")(call)}` : ""],
        ["backward", data.timed && data.backward ? `${times("backward")(call)} ms, ${times("backward_self")(call)} self, ± ${times("backward_spread")(call)}` : ""],
        ["share", data.timed && whole ? `${percent(self(call) / whole)} self time` : ""],
        ["FLOPs", call.flops === "nan" ? "unknown" : `${engineering(call.flops)}FLOP forward${data.backward ? `, ${engineering(call.backward_flops)}FLOP backward` : ""}${flops ? `; ${percent(call.flops / flops)} of all` : ""}`],
        ["intensity", isFiniteNumber(call.intensity) ? `${figure(call.intensity, 3)} FLOP for each byte moved` : ""],
        ["kept", data.backward ? `${engineering(call.kept)}B saved for backward, ${engineering(call.kept_self)}B self` : ""],
        ["parameters", `${engineering(call.parameters).trim()}, ${engineering(call.parameters_self).trim()} of its own; ${engineering(call.parameter_bytes)}B`],
        ["not counted", call.uncounted ? `${call.uncounted} operations have no formula for FLOPs` : ""],
        ["recomputed", whyAgain(call)],
      ]),
    ],
  };
}

function whyAgain({ recompute }) {
  return recompute ? "a backward pass made this call, under activation checkpointing" : "";
}

// The number of NaN and infinite elements, or nothing without any.
function unfinite(stats) {
  const text = stats ? [stats.nan && `${stats.nan} NaN`, stats.inf && `${stats.inf} Inf`].filter(Boolean).join(" ") : "";
  return text ? element("span", { class: "level-error" }, text) : null;
}

// The root of the mean square.
function rms(stats) {
  if (!stats || stats.norm === null || stats.norm === undefined) return null;
  return typeof stats.norm === "string" ? stats.norm : stats.count ? stats.norm / Math.sqrt(stats.count) : null;
}

// The length of a bar for a figure, on a logarithmic scale between the smallest and largest of all calls.
function onLog(calls, value) {
  const logs = calls.map(value).filter((each) => isFiniteNumber(each) && each > 0).map(Math.log10);
  const [low, high] = logs.reduce(([least, most], each) => [Math.min(least, each), Math.max(most, each)], [Infinity, -Infinity]);
  return (call) => {
    const found = value(call);
    if (!isFiniteNumber(found) || found <= 0) return 0;
    return high > low ? 0.06 + 0.94 * ((Math.log10(found) - low) / (high - low)) : 1;
  };
}

function rank({ state, error }) {
  const [differs, unknown] = [state === "differs", error === null || error === "nan"];
  const size = unknown ? (differs ? Infinity : -1) : typeof error === "string" ? Infinity : error;
  return (differs ? 1e300 : 0) + Math.min(size, 1e299);
}

function known(value) {
  return value === null || value === undefined || value === "nan" ? "" : figure(value);
}

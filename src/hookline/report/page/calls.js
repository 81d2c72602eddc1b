// The data of the page, as a tree of calls.

function readCalls(data) {
  const named = new Set(["path", "class", "path_b", "class_b"]);
  const calls = data.calls.map((row, number) => {
    const call = { number, children: [], depth: 0, marks: [] };
    data.columns.call.forEach((name, place) => (call[name] = named.has(name) ? data.names[row[place]] : row[place]));
    return call;
  });
  for (const call of calls) {
    call.parent = call.parent === null ? null : calls[call.parent];
    call.place = call.parent ? call.parent.children.push(call) - 1 : 0;
    call.depth = call.parent ? call.parent.depth + 1 : 0;
  }
  for (const mark of data.marks) if (mark.call !== null) calls[mark.call].marks.push(mark);
  return calls;
}

// A row of values with their names.
function withNames(names, row) {
  return row ? Object.fromEntries(names.map((name, place) => [name, row[place] ?? null])) : null;
}

// One tensor of a run, with its figures and those of its gradient.
function readTensor(data, row) {
  const [name, kind, stats, histogram, grad] = row;
  const kindOf = (number) => withNames(data.columns.kind, data.kinds[number]);
  const figures = ([stats, histogram]) => ({ ...withNames(data.columns.stats, stats), histogram: histogram ?? null });
  return { name, ...kindOf(kind), stats: stats ? figures([stats, histogram]) : null, grad: grad ? { ...kindOf(grad[2]), ...figures(grad) } : null };
}

function absmax(stats) {
  const ends = [stats?.min, stats?.max];
  if (ends.every((end) => typeof end === "number")) return Math.max(...ends.map(Math.abs));
  return ends.find((end) => typeof end === "string")?.replace("-", "") ?? null; // "nan" or "inf"
}

// The name of a call in the tree: its path below that of the call around it.
function shortName(call) {
  const above = call.parent?.path;
  const path = call.path || call.class;
  return above && path.startsWith(`${above}.`) ? path.slice(above.length + 1) : path;
}

function fullName(call) {
  return `${call.path || "(the model)"}${call.index ? ` #${call.index}` : ""}`;
}

function around(call) {
  const found = [];
  for (let above = call.parent; above; above = above.parent) found.unshift(above);
  return found;
}

function shapeText(kind) {
  const sizes = kind.shape.join("x") || "scalar";
  return [sizes, kind.dtype === "float32" ? "" : kind.dtype, ...(kind.placement ?? [])].filter(Boolean).join(" ");
}

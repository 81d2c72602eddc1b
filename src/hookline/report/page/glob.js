// The globs of hookline.select, read as in model/select.py: * is a name or a part of one, ** any number of names.

const WILDCARD = /(\*|\?|\[[^\]]+\])/;

function globToRegExp(pattern) {
  const names = pattern.split(".").filter((name, place, all) => !(name === "**" && all[place - 1] === "**"));
  if (names.length === 1 && names[0] === "**") return /^[^]*$/;
  let expression = "";
  names.forEach((name, place) => {
    const last = place === names.length - 1;
    if (name !== "**") expression += nameExpression(name) + (last ? "" : "\\.");
    else if (last) expression = expression.replace(/\\\.$/, "") + "(?:\\.[^.]+)*";
    else expression += "(?:[^.]+\\.)*";
  });
  return new RegExp(`^(?:${expression})$`, "s");
}

function nameExpression(name) {
  return name ? "(?=[^.])" + name.split(WILDCARD).map(partExpression).join("") : "";
}

function partExpression(part, place) {
  if (place % 2 === 0) return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  if (part === "*") return "[^.]*";
  if (part === "?") return "[^.]";
  const negated = part.startsWith("[!") && part !== "[!]";
  const inside = part.slice(negated ? 2 : 1, -1).replace(/[\\^[\]]/g, "\\$&");
  return `(?!\\.)[${negated ? "^" : ""}${inside}]`;
}

// A function that returns whether a call matches: a glob if the text has a wildcard, else a part of a path or class.
// null for text that is not a valid glob.
function matcher(text, aliases) {
  const names = Object.entries(aliases).reduce((all, [alias, path]) => ({ ...all, [path]: [...(all[path] ?? []), alias] }), {});
  const paths = (call) => [call.path, ...(names[call.path] ?? []), ...(call.path_b && call.path_b !== call.path ? [call.path_b] : [])];
  if (!WILDCARD.test(text)) {
    const part = text.toLowerCase();
    return (call) => paths(call).some((path) => path.toLowerCase().includes(part)) || call.class.toLowerCase().includes(part);
  }
  try {
    const expression = globToRegExp(text);
    return (call) => paths(call).some((path) => expression.test(path));
  } catch {
    return null;
  }
}

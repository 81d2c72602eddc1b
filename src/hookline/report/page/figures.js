// Numbers, formatted as in the terminal's tables.

// "%.4g": four digits, with an exponent for very small or large numbers.
function figure(value, digits = 4) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value; // "nan", "inf", "-inf"
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const power = Number(exponent);
  if (power >= -4 && power < digits) return withoutZeros(value.toFixed(digits - 1 - power));
  const sign = power < 0 ? "-" : "+";
  return `${withoutZeros(mantissa)}e${sign}${String(Math.abs(power)).padStart(2, "0")}`;
}

function withoutZeros(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function milliseconds(seconds) {
  if (typeof seconds !== "number") return figure(seconds);
  const value = seconds * 1e3;
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

// Three digits and k, M, G or T, to be followed by a unit: "1.54 k" + "B".
function engineering(value) {
  if (typeof value !== "number") return figure(value);
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${figure(value / size, 3)} ${unit}`;
  }
  return `${figure(value, 3)} `;
}

function percent(share) {
  return isFiniteNumber(share) ? `${(share * 100).toFixed(0)}%` : "";
}

function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en-US")} ${number === 1 ? one : many}`;
}

function isFiniteNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

// The largest of many numbers; 0 without any.
function largest(numbers) {
  return numbers.reduce((most, each) => (each > most ? each : most), 0);
}

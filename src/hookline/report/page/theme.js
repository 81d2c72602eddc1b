// Light and dark: the system's theme, until one is chosen.

function theme(dark) {
  return document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
}

// Follow the theme, and call a function when it changes.
function watchTheme(onChange = () => {}) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const nameTheme = () => {
    byId("theme").textContent = theme(dark) === "dark" ? "☀ Light" : "☾ Dark";
  };
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = theme(dark) === "dark" ? "light" : "dark";
    nameTheme();
    onChange();
  });
  dark.addEventListener("change", () => { nameTheme(); onChange(); });
  nameTheme();
}

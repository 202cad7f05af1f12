// Light or dark by hand; without a choice the page follows the reader's system.

const root = document.documentElement;
const toggle = document.getElementById("theme");
const wantsDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : wantsDark.matches;
}

function sayTheme() {
  toggle.textContent = isDark() ? "Light colours" : "Dark colours";
}

toggle.hidden = false;
toggle.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  sayTheme();
});
wantsDark.addEventListener("change", sayTheme);
sayTheme();

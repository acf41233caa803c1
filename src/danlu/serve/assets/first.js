// Before anything is painted: the language and the colours that were chosen, else those of the browser.
(function () {
  var kept = {};
  try {
    kept = { language: localStorage.getItem("danlu.language"), theme: localStorage.getItem("danlu.theme") };
  } catch (error) {
    // A browser may forbid it; then nothing is remembered.
  }
  var asked = (navigator.languages && navigator.languages[0]) || navigator.language || "";
  var language = kept.language || (asked.slice(0, 2).toLowerCase() === "zh" ? "zh" : "en");
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  if (kept.theme === "light" || kept.theme === "dark") document.documentElement.dataset.theme = kept.theme;
})();

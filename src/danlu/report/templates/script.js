(function () {
  var zh = document.getElementById("lang-zh"), root = document.documentElement;
  function tell() { root.lang = zh.checked ? "zh-CN" : "en"; }
  if ((navigator.languages && navigator.languages[0] || navigator.language || "").slice(0, 2) === "zh") zh.checked = true;
  document.querySelectorAll(".choice").forEach(function (choice) { choice.addEventListener("change", tell); });
  addEventListener("beforeprint", function () {
    document.querySelectorAll("details.print").forEach(function (details) { details.open = true; });
  });
  tell();
})();

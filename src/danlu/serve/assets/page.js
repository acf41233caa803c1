// The page: its views, its models, its language and its colours.

import { ask } from "/assets/api.js";
import { board } from "/assets/board.js";
import { h, trouble } from "/assets/dom.js";
import { labelling } from "/assets/label.js";
import { trial } from "/assets/try.js";
import { FAMILIES } from "/assets/terms.js";
import { keep, kept, language, say, speak, tell } from "/assets/words.js";

const VIEWS = {
  try: { make: trial, title: ["Try", "试用"] },
  label: { make: labelling, title: ["Label", "标注"] },
  board: { make: board, title: ["Board", "看板"] },
};
const TASKS = {
  "text-classification": ["text classification", "文本分类"],
  "image-classification": ["image classification", "图像分类"],
  translation: ["translation", "翻译"],
  "language-modelling": ["language modelling", "语言建模"],
};

const page = { models: [], shown: null, leave: null };
const place = (id) => document.getElementById(id);

function switches() {
  const mark = () => {
    const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    for (const each of document.querySelectorAll("[data-language]")) each.setAttribute("aria-pressed", each.dataset.language === language());
    for (const each of document.querySelectorAll("[data-theme-name]")) each.setAttribute("aria-pressed", each.dataset.themeName === dark);
  };
  place("languages").addEventListener("click", ({ target }) => {
    if (target.dataset.language) speak(target.dataset.language);
    title();
    mark();
  });
  place("themes").addEventListener("click", ({ target }) => {
    if (!target.dataset.themeName) return;
    document.documentElement.dataset.theme = target.dataset.themeName;
    keep("theme", target.dataset.themeName);
    mark();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", mark);
  tell();
  mark();
}

function title() {
  const words = VIEWS[page.shown]?.title ?? ["", ""];
  document.title = [words[language() === "zh" ? 1 : 0], page.model?.id, "danlu"].filter(Boolean).join(" · ");
}

function tellModel() {
  const { model } = page;
  const task = TASKS[model.task] ?? [model.task, model.task];
  const words = (...names) => [...names, model.digest.slice(0, 12)].filter(Boolean).join(" · ");
  say(place("facts"), [words(task[0], model.family), words(task[1], FAMILIES[model.family] ?? model.family)]);
}

/** The name means another model since a moment ago. */
function swapped(digest) {
  page.model.digest = digest;
  tellModel();
}

/** Shows the view that the address names, for the model that is chosen. */
function show(again = false) {
  const name = Object.hasOwn(VIEWS, location.hash.slice(1)) ? location.hash.slice(1) : "try";
  if (name === page.shown && !again) return;
  page.leave?.();
  for (const each of Object.keys(VIEWS)) {
    place(`view-${each}`).hidden = each !== name;
    document.querySelector(`#views a[href="#${each}"]`).toggleAttribute("aria-current", false);
    if (each !== name) place(`view-${each}`).replaceChildren();
  }
  document.querySelector(`#views a[href="#${name}"]`).setAttribute("aria-current", "page");
  const moved = page.shown !== null && page.shown !== name;
  page.shown = name;
  page.leave = VIEWS[name].make(place(`view-${name}`), page.model, swapped);
  title();
  if (moved) place(`title-${name}`)?.focus({ preventScroll: true });
}

function choose(id) {
  page.model = page.models.find((model) => model.id === id) ?? page.models[0];
  place("model").value = page.model.id;
  keep("model", page.model.id);
  tellModel();
  show(true);
}

async function start() {
  place("trouble").replaceChildren();
  let found;
  try {
    found = await ask("/v1/models");
  } catch (refusal) {
    place("trouble").replaceChildren(trouble(refusal, start));
    return;
  }
  page.models = found.data;
  place("model").replaceChildren(...page.models.map(({ id }) => h("option", { value: id }, id)));
  place("which").hidden = false;
  choose(kept("model"));
}

switches();
place("model").addEventListener("change", ({ target }) => choose(target.value));
place("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  place("main").focus();
});
addEventListener("hashchange", () => page.model && show());
start();

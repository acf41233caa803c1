// Elements. Text comes in as text only: nothing here reads markup.

import { say, sayAttribute } from "/assets/words.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element.
 *
 * Properties: `say: [en, zh]` its text; `label`, `placeholder`, `title: [en, zh]`; `on: {event: function}`;
 * `class`, and any other attribute. false, null and undefined leave an attribute out.
 */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for a part of a picture. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, { say: words, label, placeholder, title, on, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  if (words) say(element, words);
  if (label) sayAttribute(element, "aria-label", label);
  if (placeholder) sayAttribute(element, "placeholder", placeholder);
  if (title) sayAttribute(element, "title", title);
  for (const [event, heard] of Object.entries(on ?? {})) element.addEventListener(event, heard);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button. */
export function button(words, click, properties = {}) {
  return h("button", { type: "button", say: words, on: { click }, ...properties });
}

/** A field below its label. */
export function field(words, control, note = null) {
  control.id ||= `field-${(field.n = (field.n ?? 0) + 1)}`;
  const described = note && h("p", { class: "note", id: `${control.id}-note`, say: note });
  if (described) control.setAttribute("aria-describedby", described.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, h("span", { say: words })), control, described);
}

/** What went wrong, in words, with what to do; `again` is called by its button. */
export function trouble(refusal, again = null) {
  const detail = refusal.detail && h("small", { lang: "en", translate: "no" }, refusal.detail);
  return h(
    "div",
    { class: "trouble", role: "alert" },
    h("p", {}, h("b", { say: refusal.what })),
    h("p", { say: refusal.advice }),
    detail,
    again && h("div", { class: "buttons" }, button(["Try again", "再试一次"], again)),
  );
}

/** A table with a heading over each column; cells are nodes, texts or pairs of languages. */
export function table(heads, rows, properties = {}) {
  const cell = (tag, value, more) => {
    const words = Array.isArray(value) ? { say: value } : {};
    return h(tag, { ...words, ...more }, Array.isArray(value) ? null : value);
  };
  return h(
    "table",
    properties,
    h("thead", {}, h("tr", {}, heads.map((head) => cell("th", head.words, { scope: "col", class: head.number && "n" })))),
    h(
      "tbody",
      {},
      rows.map((row) =>
        h("tr", {}, row.map((value, place) =>
          cell(place ? "td" : "th", value, place ? { class: heads[place].number && "n" } : { scope: "row" }))),
      ),
    ),
  );
}

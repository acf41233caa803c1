// Both languages of every text, kept on its element, so that a switch loses nothing of what is on the page.

const ATTRIBUTES = ["aria-label", "placeholder", "title"];

/** The language that is shown: "en" or "zh". */
export const language = () => (document.documentElement.lang.startsWith("zh") ? "zh" : "en");

/** An element's text in both languages; data may stand in it, it never becomes markup. */
export function say(element, [en, zh]) {
  element.dataset.en = en;
  element.dataset.zh = zh;
  element.textContent = language() === "zh" ? zh : en;
  return element;
}

/** An attribute that people read, in both languages. */
export function sayAttribute(element, attribute, [en, zh]) {
  element.setAttribute(`data-en-${attribute}`, en);
  element.setAttribute(`data-zh-${attribute}`, zh);
  element.setAttribute(attribute, language() === "zh" ? zh : en);
  return element;
}

/** Shows everything on the page in its language. */
export function tell() {
  const now = language();
  for (const element of document.querySelectorAll("[data-en]")) element.textContent = element.dataset[now];
  for (const attribute of ATTRIBUTES) {
    for (const element of document.querySelectorAll(`[data-en-${attribute}]`)) {
      element.setAttribute(attribute, element.getAttribute(`data-${now}-${attribute}`));
    }
  }
}

/** Changes the language, and remembers it. */
export function speak(chosen) {
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  keep("language", chosen);
  tell();
}

/** A name or a number, which is the same in both languages. */
export const same = (value) => [String(value), String(value)];

/** 0.931 -> 93.1%; what is not nothing, or not everything, does not look as if it were. */
export function percent(share, digits = 1) {
  const least = 10 ** -digits;
  if (share > 0 && 100 * share < least / 2) return `<${least.toFixed(digits)}%`;
  if (share < 1 && 100 * (1 - share) < least / 2) return `>${(100 - least).toFixed(digits)}%`;
  return `${(100 * share).toFixed(digits)}%`;
}

/** A number with its sign, which is a real minus. */
export function signed(value, digits) {
  const shown = Math.abs(value).toFixed(digits);
  return Number(shown) === 0 ? shown : `${value < 0 ? "−" : "+"}${shown}`;
}

/** 12345 -> 12,345 */
export const integer = (value) => Math.round(value).toLocaleString("en-US");

/** Seconds as people say them: 0.0123 -> 12 ms. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 0.01) return `${(1000 * seconds).toFixed(1)} ms`;
  return seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
}

/** A p-value. */
export const pValue = (p) => (p < 0.0001 ? "< 0.0001" : p < 0.01 ? p.toFixed(4) : p.toFixed(2));

/** A moment, in both languages; events tell it as seconds since 1970 or as a date. */
export function moment(time, withDate = true) {
  const date = typeof time === "number" ? new Date(1000 * time) : new Date(time);
  if (Number.isNaN(date.getTime())) return same(time);
  const form = withDate ? { dateStyle: "medium", timeStyle: "short" } : { timeStyle: "short" };
  return [date.toLocaleString("en-GB", form), date.toLocaleString("zh-CN", form)];
}

/** Puts a small thing where this browser finds it again, if it lets us. */
export function keep(name, value) {
  try {
    localStorage.setItem(`danlu.${name}`, value);
  } catch {
    // Not remembered, then.
  }
}

/** What was put there; null: nothing. */
export function kept(name) {
  try {
    return localStorage.getItem(`danlu.${name}`);
  } catch {
    return null;
  }
}

/** Letters and digits nobody else has; crypto.randomUUID exists only where an address is secure. */
export function unique() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

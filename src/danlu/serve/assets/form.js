// Forms: what is typed is never lost, and one question is asked at a time.

import { h, trouble } from "/assets/dom.js";

/** A text field whose content outlives errors, reloads and other models. */
export function draft(model, properties) {
  const place = `danlu.draft.${model.id}`;
  const area = h("textarea", { ...properties, on: { input: () => keepDraft(place, area.value) } });
  try {
    area.value = sessionStorage.getItem(place) ?? "";
  } catch {
    // The browser keeps nothing.
  }
  return area;
}

function keepDraft(place, text) {
  try {
    sessionStorage.setItem(place, text);
  } catch {
    // It is still in its field.
  }
}

/** Ctrl+Enter (or Command+Enter) in a field sends its form. */
export function sendsByKey(area, form) {
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}

/** A form that asks one question at a time; a newer one lets go of the older. */
export function asking(element, answer, send) {
  let current = null;
  const submit = async (event) => {
    event?.preventDefault();
    current?.abort();
    const mine = (current = new AbortController());
    answer.setAttribute("aria-busy", "true");
    try {
      await send(mine.signal);
    } catch (refusal) {
      if (refusal.name === "AbortError") return;
      if (!refusal.what) throw refusal;
      answer.replaceChildren(...(refusal.kept ?? []), trouble(refusal, () => submit()));
    } finally {
      if (current === mine) answer.removeAttribute("aria-busy");
    }
  };
  element.addEventListener("submit", submit);
  return () => current?.abort();
}

/** What stands there until an answer does. */
export function working() {
  return h("p", { class: "empty", role: "status", say: ["Asking the model …", "正在询问模型……"] });
}

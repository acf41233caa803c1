// Forms: what is typed is never lost, and one question is asked at a time.

import { h, trouble } from "/assets/dom.js";
import { say } from "/assets/words.js";

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

/**
 * A form that asks one question at a time; a newer one lets go of the older.
 *
 * `send(signal)` shows the answer and returns in both languages what is read out of it.
 */
export function asking(element, answer, send) {
  const aloud = h("p", { class: "unseen", role: "status" }); // it stays, so that what changes in it is read out
  element.append(aloud);
  let current = null;
  const submit = async (event) => {
    event?.preventDefault();
    current?.abort();
    const mine = (current = new AbortController());
    answer.setAttribute("aria-busy", "true");
    try {
      say(aloud, (await send(mine.signal)) ?? ["", ""]);
      reveal(answer);
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

/** On a phone the answer is below the form: it is brought into sight. */
function reveal(answer) {
  if (answer.getBoundingClientRect().top > 0.7 * innerHeight) answer.scrollIntoView({ block: "start", behavior: "smooth" });
}

/** What stands there until an answer does. */
export function working() {
  return h("p", { class: "empty", say: ["Asking the model …", "正在询问模型……"] });
}

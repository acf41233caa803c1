// Was it right? What people say of an answer, and what would have been right.

import { ask } from "/assets/api.js";
import { button, field, h, trouble } from "/assets/dom.js";
import { say, unique } from "/assets/words.js";

const ANSWERED = { question: ["Was it right?", "回答正确吗？"], yes: ["Right", "正确"], no: ["Wrong", "错误"] };
const WRITTEN = { question: ["Is it good?", "写得好吗？"], yes: ["Good", "好"], no: ["Not good", "不好"] };

/**
 * The questions below an answer.
 *
 * @param {{request: string, classes?: string[], said?: string, text?: string, written?: boolean}} about
 *   classes and said: of a classifier; text: what was translated or, if `written`, continued.
 */
export function judge({ request, classes, said, text, written = false }) {
  const heard = h("div", { role: "status", "aria-live": "polite", class: "heard" });
  const correction = h("div", {});
  const ids = new Map(); // the same words again are the same feedback, so that a second try is not counted twice

  async function send(content, words) {
    const same = JSON.stringify(content);
    if (!ids.has(same)) ids.set(same, unique());
    heard.replaceChildren();
    try {
      const { status } = await ask("/feedback", { id: ids.get(same), request, index: 0, ...content });
      const known = status === "known";
      heard.replaceChildren(h("p", { class: "thanks", say: known ? ["This was written down already.", "这条反馈此前已经记录。"] : words }));
      return true;
    } catch (refusal) {
      if (!refusal.what) throw refusal;
      heard.replaceChildren(trouble(refusal, () => send(content, words)));
      return false;
    }
  }

  const press = (chosen) => {
    for (const each of [right, wrong]) each.setAttribute("aria-pressed", each === chosen);
  };
  const { question, yes, no } = written ? WRITTEN : ANSWERED;
  const right = button(yes, () => {
    press(right);
    correction.replaceChildren();
    send({ correct: true }, ["Thank you: written down.", "谢谢：已记录。"]);
  }, { "aria-pressed": "false" });
  const wrong = button(no, () => {
    press(wrong);
    correction.replaceChildren(classes ? classesToChoose(classes, said, send) : textToMend(text ?? "", send));
    send({ correct: false }, ["Written down. What would have been right?", "已记录。正确的应该是什么？"]);
  }, { "aria-pressed": "false" });
  return h("section", { class: "judge" }, h("h2", { class: "small", say: question }),
    h("div", { class: "buttons" }, right, wrong), heard, correction);
}

function classesToChoose(classes, said, send) {
  const others = classes.filter((name) => name !== said);
  const choices = others.map((name) =>
    h("button", { type: "button", class: "chip", translate: "no", "aria-pressed": "false", on: { click: ({ currentTarget }) => {
      for (const each of choices) each.setAttribute("aria-pressed", each === currentTarget);
      send({ label: name }, [`Thank you: written down as ${name}.`, `谢谢：已记录为 ${name}。`]);
    } } }, name));
  return h("div", { role: "group", label: ["The right class", "正确的类别"], class: "chips" }, choices);
}

function textToMend(text, send) {
  const area = h("textarea", { rows: 4, spellcheck: "false" });
  area.value = text;
  const sent = button(["Send the correction", "提交修改"], async () => {
    if (area.value === text) {
      note.hidden = false;
      return;
    }
    note.hidden = true;
    await send({ text: area.value }, ["Thank you: your version was written down.", "谢谢：已记录你的版本。"]);
  }, { class: "main" });
  const note = h("p", { class: "note", role: "alert", hidden: true });
  say(note, ["It still says what the model said: change it first.", "内容与模型的回答相同，请先修改。"]);
  return h("div", {}, field(["What would have been right", "正确的内容"], area), note, h("div", { class: "buttons" }, sent));
}

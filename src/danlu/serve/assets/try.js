// Try: ask a model, see the answer and why it was given, and say whether it was right.

import { ask } from "/assets/api.js";
import { button, field, h, trouble } from "/assets/dom.js";
import { judge } from "/assets/feedback.js";
import { asking, draft, sendsByKey, working } from "/assets/form.js";
import { drawing } from "/assets/picture.js";
import { percent, same, say } from "/assets/words.js";
import { reasons } from "/assets/why.js";
import { writing } from "/assets/writing.js";

const MOST_CLASSES = 12;

const TITLES = {
  "text-classification": [["Which class is this text?", "这段文本属于哪一类？"], ["Type a text; the model says what it takes it for, how sure it is, and which words decided.", "输入一段文本，模型给出它的判断、把握，以及哪些词起了作用。"]],
  "image-classification": [["What is in this picture?", "这张图里是什么？"], ["Draw, or choose a picture; the model says what it takes it for, how sure it is, and where it looked.", "画一画，或选择一张图片，模型给出它的判断、把握，以及依据的部位。"]],
  translation: [["Translate a text", "翻译一段文本"], ["What you correct is kept, and the next model may learn from it.", "你的修改会被记录，下一个模型可以从中学习。"]],
  "language-modelling": [["Begin a text; the model goes on", "写个开头，由模型续写"], ["It appears as it is written, and can be stopped at any time.", "文字边写边显示，随时可以停止。"]],
};
const OTHER = [["This model cannot be tried here", "此模型无法在此试用"], ["Choose another model above.", "请在上方选择其他模型。"]];
const FORMS = { "text-classification": classifyText, "image-classification": classifyPicture, translation: translate, "language-modelling": writing };

/** Builds the view; returns what is to be done when it is left. */
export function trial(view, model) {
  const [title, lead] = TITLES[model.task] ?? OTHER;
  const answer = h("div", { class: "panel answer", id: "answer", role: "region", label: ["Answer", "回答"] },
    h("p", { class: "empty", say: ["The answer will stand here.", "回答会显示在这里。"] }));
  const heading = [h("h1", { id: "title-try", tabindex: -1, say: title }), h("p", { class: "lede", say: lead })];
  const form = FORMS[model.task]?.(model, answer);
  view.replaceChildren(...heading, ...(form ? [h("div", { class: "two" }, h("div", { class: "panel" }, form.element), answer)] : []));
  return form?.leave;
}

function textForm(model, answer, words, send) {
  const area = draft(model, { rows: 6, required: true, spellcheck: "false", placeholder: words.hint });
  const element = h("form", {}, field(words.field, area, ["Ctrl+Enter sends it.", "按 Ctrl+Enter 发送。"]),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "main", say: words.send }),
      button(["Clear", "清空"], () => { area.value = ""; area.dispatchEvent(new Event("input")); area.focus(); })));
  sendsByKey(area, element);
  const leave = asking(element, answer, async (signal) => {
    const input = area.value;
    answer.replaceChildren(working());
    const found = await ask("/predict", { model: model.id, inputs: [input] }, { signal });
    return send(found, input, signal);
  });
  return { element, leave };
}

function classifyText(model, answer) {
  const words = { field: ["Text", "文本"], hint: ["A text as your users write it", "像用户那样写一段文本"], send: ["Ask", "提问"] };
  return textForm(model, answer, words, (found, input, signal) => {
    answer.replaceChildren(...classified(model, found), reasons(model, { input }, signal), judged(model, found));
    return aloud(found);
  });
}

function classifyPicture(model, answer) {
  const pad = drawing(model, (refusal) => answer.replaceChildren(trouble(refusal)));
  const element = h("form", {}, pad.element, h("div", { class: "buttons" }, h("button", { type: "submit", class: "main", say: ["Ask", "提问"] }), pad.buttons));
  const leave = asking(element, answer, async (signal) => {
    const picture = await pad.picture();
    if (picture === null) {
      const words = ["Draw something first, or choose a picture.", "请先画点什么，或选择一张图片。"];
      answer.replaceChildren(h("p", { class: "empty", say: words }));
      return words;
    }
    answer.replaceChildren(working());
    const found = await ask("/predict", { model: model.id, inputs: [picture.base64] }, { signal });
    const why = reasons(model, { input: picture.base64, picture: picture.seen }, signal);
    answer.replaceChildren(...classified(model, found), why, judged(model, found));
    return aloud(found);
  });
  return { element, leave };
}

const aloud = ({ predictions: [{ label, probability }] }) => same(`${label}, ${percent(probability)}`);

function judged(model, found) {
  return judge({ request: found.id, classes: model.classes ?? [], said: found.predictions[0].label });
}

/** The class and a bar for each class, the likeliest first. */
export function classified(model, found) {
  const [{ label, probability, probabilities }] = found.predictions;
  const rows = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  const drawn = rows.map(([name, share]) => {
    const bar = h("span", { class: "bar" });
    bar.style.setProperty("--share", `${100 * share}%`);
    return h("tr", { class: name === label && "mine" }, h("th", { scope: "row", translate: "no" }, name),
      h("td", { class: "track", "aria-hidden": "true" }, bar), h("td", { class: "n", translate: "no" }, percent(share)));
  });
  const head = h("thead", { class: "unseen" }, h("tr", {}, h("th", { scope: "col", say: ["class", "类别"] }), h("td", {}), h("th", { scope: "col", say: ["probability", "概率"] })));
  const tableOf = (part) => h("table", { class: "bars" }, head.cloneNode(true), h("tbody", {}, part));
  return [
    h("p", { class: "said" }, h("b", { translate: "no" }, label), " ", h("span", { translate: "no" }, percent(probability))),
    tableOf(drawn.slice(0, MOST_CLASSES)),
    drawn.length > MOST_CLASSES && h("details", {}, h("summary", { say: [`${drawn.length - MOST_CLASSES} more classes`, `其余 ${drawn.length - MOST_CLASSES} 类`] }), tableOf(drawn.slice(MOST_CLASSES))),
  ].filter(Boolean);
}

function translate(model, answer) {
  const words = { field: ["Text to translate", "待翻译文本"], hint: ["A sentence, or a few", "一句或几句话"], send: ["Translate", "翻译"] };
  return textForm(model, answer, words, (found) => {
    const { translation } = found.predictions[0];
    const text = h("p", { class: "verse", translate: "no" });
    if (translation) text.textContent = translation;
    else say(text, ["(nothing: the model gave an empty translation)", "（空：模型给出了空的译文）"]);
    answer.replaceChildren(h("h2", { class: "small", say: ["Translation", "译文"] }), text,
      judge({ request: found.id, text: translation }));
    return same(translation);
  });
}

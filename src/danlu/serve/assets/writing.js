// A text to be continued: it appears as it is written, and can be stopped.

import { stream } from "/assets/api.js";
import { button, field, h } from "/assets/dom.js";
import { judge } from "/assets/feedback.js";
import { asking, draft, sendsByKey } from "/assets/form.js";
import { same, say } from "/assets/words.js";

const USUAL = 64;
const MOST = 512;

/** The form of a model that writes. */
export function writing(model, answer) {
  const area = draft(model, { rows: 5, spellcheck: "false", required: true, placeholder: ["The first words", "开头的文字"] });
  const heat = h("input", { type: "range", min: 0, max: 2, step: 0.1, value: 0.8 });
  const heatShown = h("output", { class: "n" }, "0.8");
  heat.addEventListener("input", () => { heatShown.textContent = Number(heat.value).toFixed(1); });
  const most = Math.min(MOST, model.max_len ?? MOST, model.max_new_tokens);
  const length = h("input", { type: "number", min: 1, max: most, value: Math.min(USUAL, most), inputmode: "numeric", required: true });
  const stop = button(["Stop", "停止"], () => halt.abort(), { disabled: true });
  const go = h("button", { type: "submit", class: "main", say: ["Go on", "续写"] });
  let halt = new AbortController();

  const element = h("form", {}, field(["Beginning", "开头"], area, ["Ctrl+Enter sends it.", "按 Ctrl+Enter 发送。"]),
    h("div", { class: "pair" },
      field(["Temperature", "温度"], heat, ["0: the likeliest each time; higher: more surprising", "0：每次取最可能的；越高越出人意料"]),
      field(["Tokens at most", "最多词元数"], length)),
    h("div", { class: "buttons" }, go, stop));
  element.querySelector(".pair label").append(" ", heatShown);
  sendsByKey(area, element);
  const leave = asking(element, answer, async (signal) => {
    halt = new AbortController();
    stop.disabled = false;
    try {
      const asked = { model: model.id, prompt: area.value, temperature: Number(heat.value), max_tokens: Number(length.value) };
      return await written(asked, answer, AbortSignal.any([signal, halt.signal]), halt.signal);
    } finally {
      if (document.activeElement === stop) go.focus(); // a disabled button would let the focus fall
      stop.disabled = true;
    }
  });
  return { element, leave };
}

async function written(asked, answer, signal, halted) {
  const more = h("b", {});
  const status = h("p", { class: "note", say: ["Writing …", "正在书写……"] });
  const verse = h("p", { class: "verse", translate: "no" }, asked.prompt, more);
  answer.replaceChildren(h("h2", { class: "small", say: ["Continued", "续写"] }), verse, status);
  let [request, ended, usage, n] = [null, null, null, 0];
  try {
    for await (const part of stream("/v1/completions", { ...asked, stream: true, stream_options: { include_usage: true } }, signal)) {
      request = part.id;
      usage = part.usage ?? usage;
      for (const choice of part.choices) {
        more.append(choice.text);
        n += 1;
        ended = choice.finish_reason ?? ended;
      }
    }
  } catch (refusal) {
    if (!halted.aborted) {
      if (n) refusal.kept = [...answer.childNodes].slice(0, 2); // what came stays, and below it what went wrong
      throw refusal;
    }
  }
  if (halted.aborted) say(status, ["Stopped by you.", "已由你停止。"]);
  else {
    const tokens = usage?.completion_tokens ?? n;
    const why = ended === "length" ? ["as many as were asked for", "达到长度上限"] : ["the model ended it", "模型自行结束"];
    say(status, [`${tokens} tokens; ${why[0]}.`, `${tokens} 个词元；${why[1]}。`]);
  }
  // Only what was answered to its end is on the record, where something can be said of it.
  if (!halted.aborted) answer.append(judge({ request, text: more.textContent, written: true }));
  return same(more.textContent);
}

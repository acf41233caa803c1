// Label: open questions, one after another; an answer can be taken back until it is sent.

import { ask } from "/assets/api.js";
import { button, field, h, trouble } from "/assets/dom.js";
import { unpacked } from "/assets/picture.js";
import { integer, keep, kept, percent, say, unique } from "/assets/words.js";

const AT_ONCE = 20;
const MOST = 100; // questions that the server gives at a time
const HELD = 5000; // milliseconds in which an answer can be taken back
const WHY = {
  margin: ["the model wavered between two classes", "模型在两个类别之间犹豫"],
  entropy: ["the model was unsure", "模型没有把握"],
  random: ["it was drawn at random", "随机抽取"],
  "core-set": ["it is unlike what is labelled so far", "它与已标注的内容差异较大"],
};

/** Builds the view; returns what is to be done when it is left. */
export function labelling(view, model) {
  const desk = new Desk(view, model);
  desk.send().then(() => desk.load()); // what an earlier visit left unsent, then the questions
  const keys = (event) => desk.key(event);
  const hidden = () => document.hidden && desk.send({ keepalive: true });
  document.addEventListener("keydown", keys);
  document.addEventListener("visibilitychange", hidden);
  return () => {
    document.removeEventListener("keydown", keys);
    document.removeEventListener("visibilitychange", hidden);
    desk.send({ keepalive: true });
  };
}

class Desk {
  constructor(view, model) {
    this.model = model;
    this.place = `danlu.unsent.${model.id}`;
    this.waiting = []; // questions not yet answered
    this.held = JSON.parse(sessionStorage.getItem(this.place) ?? "[]"); // answers not yet sent; a reload keeps them
    this.seen = new Set(this.held.map(({ question }) => question.id));
    this.sent = 0;
    this.sending = 0;
    this.open = null; // questions that nobody has answered, here or elsewhere; null: not known yet
    this.skipped = new Set();
    const who = h("input", { type: "text", maxlength: 60, autocomplete: "off", spellcheck: "false" });
    who.value = kept("labeller") ?? `labeller-${unique().slice(0, 6)}`;
    who.addEventListener("input", () => keep("labeller", who.value));
    this.who = who;
    this.desk = h("div", { class: "panel desk" });
    this.status = h("p", { class: "note", role: "status", "aria-live": "polite" });
    this.wrong = h("div", {});
    this.progress = h("progress", { max: 1, value: 0, label: ["Progress", "进度"] });
    this.counted = h("span", { class: "note" });
    this.back = button(["Undo (u)", "撤销 (u)"], () => this.undo(), { disabled: true });
    view.replaceChildren(
      h("h1", { id: "title-label", tabindex: -1, say: ["What should it have said?", "应该怎么回答？"] }),
      h("p", { class: "lede", say: ["Your answers teach the next model. Keys: 1 to 9 choose a class, s skips, u undoes.", "你的标注用于训练下一个模型。按键：1 至 9 选择类别，s 跳过，u 撤销。"] }),
      h("div", { class: "progress" }, this.progress, this.counted), this.desk, this.status, this.wrong,
      h("div", { class: "panel aside" }, field(["Who labels", "标注人"], who, ["So that several people’s answers can be told apart. Kept in this browser.", "用于区分不同人的标注，保存在此浏览器中。"])),
    );
  }

  /** Brings questions, and shows the first; what was skipped comes again only if somebody asks for it. */
  async load(again = false) {
    if (!this.model.classes?.length) {
      this.desk.replaceChildren(h("p", { class: "empty", say: ["Questions are about classes, and this model has none. At Try its texts can be corrected.", "标注针对分类，而此模型没有类别。可在“试用”中修改它的文本。"] }));
      return;
    }
    this.desk.setAttribute("aria-busy", "true");
    try {
      if (again) for (const id of this.skipped) this.seen.delete(id);
      if (again) this.skipped.clear();
      // The longest open come first, and what was skipped or is not sent yet is still among them.
      const n = Math.min(MOST, AT_ONCE + this.skipped.size + this.unsent);
      const { questions, n_open: open } = await ask(`/label?model=${encodeURIComponent(this.model.id)}&n=${n}`);
      this.open = open - this.unsent;
      this.waiting.push(...questions.filter(({ id }) => !this.seen.has(id)));
      for (const { id } of questions) this.seen.add(id);
      if (this.waiting.length) await this.show();
      else this.finished();
    } catch (refusal) {
      if (!refusal.what) throw refusal;
      this.desk.replaceChildren(trouble(refusal, () => this.load(again)));
    } finally {
      this.desk.removeAttribute("aria-busy");
    }
  }

  /** Answers that the server does not have yet. */
  get unsent() {
    return this.held.length + this.sending;
  }

  count() {
    this.back.disabled = !this.held.length;
    if (this.open === null) return;
    const [done, open] = [this.sent + this.unsent, Math.max(0, this.open)]; // others may have answered meanwhile
    Object.assign(this.progress, { max: done + open || 1, value: done });
    say(this.counted, [`${integer(done)} done in this sitting, ${integer(open)} open in all`, `本次已完成 ${integer(done)} 个，共有 ${integer(open)} 个待标注`]);
  }

  async show() {
    const question = this.waiting[0];
    if (!question) {
      await (this.open > this.skipped.size ? this.load() : this.finished());
      return;
    }
    this.count();
    const { input, answer, why } = question;
    const shown = await picturedOrQuoted(this.model, input);
    if (this.waiting[0] !== question) return; // answered while the picture was unpacked
    const choices = this.model.classes.map((name, place) =>
      h("button", { type: "button", class: "chip", on: { click: () => this.answer(name) } },
        place < 9 && h("kbd", { "aria-hidden": "true" }, String(place + 1)), h("span", { translate: "no" }, name)));
    const reason = WHY[why?.by];
    const thought = answer && [`The model said ${answer.label} (${percent(answer.probability)})${reason ? `; asked because ${reason[0]}` : ""}.`,
      `模型的回答：${answer.label}（${percent(answer.probability)}）${reason ? `；选中原因：${reason[1]}` : ""}。`];
    const focused = this.desk.contains(document.activeElement) && document.activeElement !== document.body;
    this.desk.replaceChildren(...[shown, h("div", { class: "chips", role: "group", label: ["The right class", "正确的类别"] }, choices),
      h("div", { class: "buttons" }, button(["Skip (s)", "跳过 (s)"], () => this.skip()), this.back),
      // Closed, so that nobody is led by what the model said.
      thought && h("details", {}, h("summary", { say: ["What the model said", "模型的回答"] }), h("p", { class: "note", say: thought }))].filter(Boolean));
    if (focused) choices[0].focus({ preventScroll: true });
  }

  finished() {
    this.count();
    const n = this.skipped.size;
    const words = n
      ? [`That was the last question but ${n} that you skipped. Thank you.`, `除你跳过的 ${n} 个外，没有更多问题了，谢谢。`]
      : this.sent + this.unsent ? ["That was the last question. Thank you.", "没有更多问题了，谢谢。"] : ["No question is open.", "没有待标注的问题。"];
    const name = this.model.id.split("@")[0];
    this.desk.replaceChildren(h("p", { class: "said small" }, h("b", { say: words })),
      h("p", { class: "note", say: ["Questions come from requests whose label would teach the model most. To ask for twenty:", "问题取自标注后最能帮助模型的请求。要提出二十个："] }),
      h("code", { class: "cmd", translate: "no" }, `danlu feedback ${name} ask=20 by=margin`),
      h("div", { class: "buttons" }, button(["Look again", "重新查看"], () => this.load(true)), this.back));
  }

  key(event) {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || document.querySelector("dialog[open]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "u" && this.held.length) this.undo();
    else if (event.key === "s" && this.waiting.length) this.skip();
    else if (/^[1-9]$/.test(event.key) && this.waiting.length) {
      const name = this.model.classes?.[Number(event.key) - 1];
      if (name !== undefined) this.answer(name);
    } else return;
    event.preventDefault();
  }

  answer(label) {
    const who = this.who.value.trim();
    if (!who) {
      say(this.status, ["Say first who labels: the name below.", "请先在下方填写标注人。"]);
      this.who.focus();
      return;
    }
    keep("labeller", who);
    this.send(); // the one before can be taken back no more
    this.held.push({ id: unique(), question: this.waiting.shift(), label, who });
    this.open -= 1;
    this.remember();
    say(this.status, [`${label}: sent in ${HELD / 1000} s; u undoes.`, `${label}：${HELD / 1000} 秒后提交，按 u 撤销。`]);
    this.timer = setTimeout(() => this.send(), HELD);
    this.show();
  }

  remember() {
    sessionStorage.setItem(this.place, JSON.stringify(this.held));
  }

  skip() {
    this.skipped.add(this.waiting.shift().id);
    say(this.status, ["Skipped; it stays open.", "已跳过，问题仍保留。"]);
    this.show();
  }

  undo() {
    clearTimeout(this.timer);
    const { question, label } = this.held.pop();
    this.remember();
    this.waiting.unshift(question);
    if (this.open !== null) this.open += 1;
    say(this.status, [`${label} was taken back.`, `已撤销 ${label}。`]);
    this.show();
  }

  /** Sends what is held; what cannot be sent stays, and is told. */
  async send(more = {}) {
    clearTimeout(this.timer);
    const sending = this.held.splice(0);
    this.sending += sending.length;
    this.count();
    for (const [place, each] of sending.entries()) {
      const { id, question, label, who } = each;
      const body = { id, request: question.request, index: question.index ?? 0, label, source: { kind: "labeller", id: who } };
      try {
        await ask("/feedback", body, more);
        this.sent += 1;
        this.sending -= 1;
        say(this.status, [`${label}: written down. Thank you.`, `${label}：已记录，谢谢。`]);
        this.wrong.replaceChildren();
      } catch (refusal) {
        if (!refusal.what) throw refusal;
        this.held.unshift(...sending.slice(place));
        this.sending -= sending.length - place;
        this.wrong.replaceChildren(trouble(refusal, () => this.send()));
        break;
      }
    }
    this.remember();
    this.count();
    if (sending.length && !this.waiting.length && !this.held.length && !more.keepalive) this.load();
  }
}

/** What is asked about: a picture, a text, or that it was not kept. */
async function picturedOrQuoted(model, input) {
  if (input === null || input === undefined) return h("p", { class: "empty", say: ["What was asked was not kept.", "未保留当时的输入。"] });
  if (model.task === "image-classification") return unpacked(input);
  return h("blockquote", { class: "asked", translate: "no" }, input);
}

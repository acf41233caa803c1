// Why: the words or the places that a class was chosen by.

import { ask } from "/assets/api.js";
import { h, table, trouble } from "/assets/dom.js";
import { method } from "/assets/terms.js";
import { percent, same, sayAttribute, signed } from "/assets/words.js";

const MOST_SHADE = 50; // percent of a colour at most, so that text stays readable on it
const MOST_LISTED = 5;
const PLACES = [
  ["upper left", "左上"], ["upper middle", "中上"], ["upper right", "右上"],
  ["middle left", "左中"], ["middle", "中央"], ["middle right", "右中"],
  ["lower left", "左下"], ["lower middle", "中下"], ["lower right", "右下"],
];

/** The explanation of an answer; it comes after the answer, which does not wait for it. */
export function reasons(model, { input, picture }, signal) {
  const section = h("section", { class: "why", "aria-busy": "true" });
  const heading = () => h("h2", { class: "small", say: ["Why", "依据"] });
  const load = async () => {
    section.replaceChildren(heading(), h("p", { class: "empty", say: ["Looking for what decided …", "正在寻找起作用的部分……"] }));
    try {
      const explained = await ask("/explain", { model: model.id, input }, { signal });
      section.replaceChildren(heading(), ...(explained.spans ? words(explained, input) : places(explained, picture)));
    } catch (refusal) {
      if (refusal.name === "AbortError") return;
      if (!refusal.what) throw refusal;
      const never = refusal.code === "wrong_task"; // such a model has no reasons that could be found
      section.replaceChildren(heading(), never
        ? h("p", { class: "empty", say: ["What decided cannot be shown for this kind of model.", "无法显示此类模型的判断依据。"] })
        : trouble(refusal, load));
    } finally {
      section.removeAttribute("aria-busy");
    }
  };
  load();
  return section;
}

function legend(label) {
  return h("p", { class: "note legend" },
    h("span", { class: "key for", say: [`speaks for ${label}`, `支持 ${label}`] }),
    h("span", { class: "key against", say: ["speaks against it", "反对"] }));
}

/** How the reasons were found. */
const howFound = (how) => h("details", {}, h("summary", { say: ["How this was found", "如何得出"] }), h("p", { class: "note", say: method(how) }));

function words({ text, spans, label, method: how }, input) {
  const most = Math.max(...spans.map(({ weight }) => Math.abs(weight)), 1e-12);
  const shaded = h("p", { class: "shaded", translate: "no" });
  const letters = Array.from(text); // places are counted in characters, not in UTF-16 units
  let at = 0;
  for (const { text: part, start, end, weight } of spans) {
    shaded.append(letters.slice(at, start).join(""));
    const mark = h("span", { class: weight < 0 ? "token against" : "token for", title: same(signed(weight, 3)) }, part);
    mark.style.setProperty("--share", `${((MOST_SHADE * Math.abs(weight)) / most).toFixed(1)}%`);
    shaded.append(mark);
    at = end;
  }
  shaded.append(letters.slice(at).join(""));
  const ranked = spans.filter((span) => span.text.trim()).toSorted((a, b) => b.weight - a.weight);
  const listed = (part) => part.map((span) => [h("span", { translate: "no" }, span.text), signed(span.weight, 3)]);
  const heads = (en, zh) => [{ words: [en, zh] }, { words: ["weight", "权重"], number: true }];
  const ahead = listed(ranked.filter(({ weight }) => weight > 0).slice(0, MOST_LISTED));
  const behind = listed(ranked.filter(({ weight }) => weight < 0).slice(-MOST_LISTED).reverse());
  const seen = text === input ? null : h("p", { class: "note", say: ["Shown as the model read it, after cleaning.", "显示的是清洗后模型读到的文本。"] });
  return [shaded, legend(label), seen,
    h("details", {}, h("summary", { say: ["As a table", "表格"] }), h("div", { class: "two close" },
      table(heads(`most for ${label}`, `最支持 ${label}`), ahead), table(heads("most against it", "最反对"), behind))), howFound(how)].filter(Boolean);
}

function places({ weights, height, width, label, method: how }, picture) {
  const plain = canvas(width, height, ["What the model saw", "模型看到的图"]);
  plain.getContext("2d").drawImage(picture, 0, 0, width, height);
  const sums = [Array(9).fill(0), Array(9).fill(0)];
  const most = Math.max(...weights.flat().map(Math.abs), 1e-12);
  const shown = canvas(width, height, ["", ""]);
  const pen = shown.getContext("2d");
  const base = plain.getContext("2d").getImageData(0, 0, width, height).data;
  const out = pen.createImageData(width, height);
  weights.forEach((row, y) => row.forEach((weight, x) => {
    const at = 4 * (y * width + x);
    const cell = 3 * Math.min(2, Math.floor((3 * y) / height)) + Math.min(2, Math.floor((3 * x) / width));
    sums[weight < 0 ? 1 : 0][cell] += Math.abs(weight);
    const grey = 60 + 0.45 * (0.299 * base[at] + 0.587 * base[at + 1] + 0.114 * base[at + 2]);
    const share = Math.abs(weight) / most;
    const colour = weight < 0 ? [72, 150, 232] : [240, 84, 48];
    for (let c = 0; c < 3; c++) out.data[at + c] = grey + share * (colour[c] - grey);
    out.data[at + 3] = 255;
  }));
  pen.putImageData(out, 0, 0);
  const [ahead, behind] = sums.map(strongest);
  const text = [
    `${ahead ? `What speaks for ${label} lies mostly in the ${ahead[0]}.` : `Nothing speaks for ${label}.`} ${behind ? `What speaks against it, in the ${behind[0]}.` : "Nothing speaks against it."}`,
    `${ahead ? `支持 ${label} 的部分主要在${ahead[1]}；` : `没有支持 ${label} 的部分；`}${behind ? `反对的部分主要在${behind[1]}。` : "没有反对的部分。"}`,
  ];
  sayAttribute(shown, "aria-label", text);
  return [h("div", { class: "shots" },
    h("figure", {}, plain, h("figcaption", { say: ["what the model saw", "模型看到的图"] })),
    h("figure", {}, shown, h("figcaption", { say: ["what decided", "起作用的部位"] }))),
  h("p", { class: "note", say: text }), legend(label), howFound(how)];
}

function strongest(sums) {
  const all = sums.reduce((a, b) => a + b, 0);
  if (!all) return null;
  const cell = sums.indexOf(Math.max(...sums));
  return [`${PLACES[cell][0]} (${percent(sums[cell] / all, 0)})`, `${PLACES[cell][1]}（${percent(sums[cell] / all, 0)}）`];
}

function canvas(width, height, label) {
  return h("canvas", { width, height, class: "pixels", role: "img", label });
}

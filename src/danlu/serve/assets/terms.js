// What danlu writes in English, in Chinese: names of its own, and the sentences in which it says why. Words of people
// stay as they are.

/** Kinds of models, as reports call them. */
export const FAMILIES = {
  bert: "Transformer 编码器",
  gpt: "Transformer 解码器",
  transformer: "Transformer 编码器-解码器",
  vit: "图块 Transformer",
  cnn: "卷积神经网络",
  mlp: "全连接网络",
  gru: "循环神经网络",
  ensemble: "多个模型合一",
  "tfidf-lr": "字符加权计数与逻辑回归",
  "pixels-lr": "像素上的逻辑回归",
  "5-gram": "五个以内相邻字符的插值计数",
  "translation-memory": "最相似已知原文的译文",
};

/** Scores, as reports call them. */
export const METRICS = {
  macro_f1: "宏平均 F1",
  accuracy: "准确率",
  auroc: "AUROC 曲线下面积",
  ece: "校准误差（ECE）",
  bits_per_character: "每字符比特数",
  perplexity_per_token: "每词元困惑度",
  chrf: "chrF",
  bleu: "BLEU",
  exact_match: "与人工译文一致",
  placeholders_kept: "占位符保留",
};

const VERDICTS = { better: "更好", worse: "更差", "no difference shown": "未显示差异" };
const DECISIONS = { superior: "挑战者更好", inferior: "挑战者更差", equivalent: "没有实质差别", inconclusive: "没有结论", stopped: "已停止", continues: "尚未决定" };
const MODES = { live: "在线", shadow: "影子" };
const WHO = { users: "名用户", "labelled inputs": "条已标注输入" };

const NUMBER = "[-+]?(?:\\d[\\d,]*(?:\\.\\d+)?(?:e[-+]?\\d+)?|nan|inf)";
const words = (known) => Object.keys(known).join("|");

/** What may stand in a place of a template; what is not here is a number. */
const PLACES = {
  metric: "[\\w-]+", baseline: "[^;:,]+", digest: "[0-9a-f]+", file: ".+",
  verdict: words(VERDICTS), mode: words(MODES), decision: words(DECISIONS), who: words(WHO),
};
const NAMES = { metric: METRICS, baseline: { ...FAMILIES, champion: "冠军" }, verdict: VERDICTS, mode: MODES, decision: DECISIONS, who: WHO };

const DIFFERENCE = ["{metric} {by} ({low} to {high})", "{metric} {by}（{low} 至 {high}）"];
const TRIAL = ["{mode} trial {digest}: {decision}", "{mode}试验 {digest}：{decision}"];

/** From a sentence as it is written to the one that is shown; `next` is what may come behind it. */
const template = (next, ...parts) => {
  const [en, zh] = [0, 1].map((side) => parts.map((part) => part[side]).join(""));
  const pattern = en.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{(\w+)\}/g, (_, place) => `(?<${place}>${PLACES[place] ?? NUMBER})`);
  return { pattern: new RegExp(`^${pattern}(?=${next})`), zh };
};
const [END, MORE, OWN] = ["$", "$|; ", "$|: "];
/** The first that fits counts. */
const REASONS = [
  template(END, ["trained", "训练完成"]),
  template(END, ["{metric} {by} against {baseline}, p = {p}", "{metric} {by}（对比 {baseline}，p = {p}）"]),
  template(END, ["learnt from {n} records of feedback; on the gold set ", "学习了 {n} 条反馈；在金标准集上 "], DIFFERENCE, [", at most {margin} may be lost", "，最多允许下降 {margin}"]),
  template(MORE, ["proposal: passed, ", "提议：通过，"], DIFFERENCE),
  template(MORE, ["proposal: passed", "提议：通过"]),
  template(MORE, DIFFERENCE, [" against {baseline}: {verdict}", "，对比 {baseline}：{verdict}"]),
  template(OWN, ["rolled back from {digest}", "自 {digest} 回退"]),
  template(END, ["{n} records of {file}", "{file} 的 {n} 条记录"]),
];
/** What may follow in this order, one of each kind. */
const AFTERWARDS = [
  [
    template(MORE, TRIAL, [", {n} of at most {budget} {who}, challenger - champion {by} ({low} to {high}), margin {margin}", "，{n} / {budget} {who}，挑战者减冠军 {by}（{low} 至 {high}），界限 {margin}"]),
    template(MORE, TRIAL, [", no outcome yet of at most {budget} {who}", "，尚无结果（至多 {budget} {who}）"]),
  ],
  [template(MORE, ["{n} came after the decision and change nothing about it", "此后又有 {n} 条，不影响该决定"])],
  [template(MORE, ["its arms do not have the planned shares (p = {p})", "两组的比例与计划不符（p = {p}）"])],
];

function translated(text, templates) {
  for (const { pattern, zh } of templates) {
    const found = pattern.exec(text);
    if (!found) continue;
    const filled = zh.replace(/\{(\w+)\}/g, (_, place) => NAMES[place]?.[found.groups[place]] ?? found.groups[place]);
    return [filled.replace(/(?<=\p{Script=Han}) (?=\p{Script=Han})/gu, ""), text.slice(found[0].length)];
  }
  return null;
}

/** Why a name means another model, in both languages: danlu's own sentences, then what a person added. */
export function reason(text) {
  const began = translated(text, REASONS);
  if (!began) return [text, text];
  let [zh, rest] = began;
  for (const templates of AFTERWARDS) {
    const next = rest.startsWith("; ") && translated(rest.slice(2), templates);
    if (next) [zh, rest] = [`${zh}；${next[0]}`, next[1]];
  }
  return [text, zh + rest.replace(/^; /, "；").replace(/^: /, "：")];
}

const METHODS = [
  [/^sum of what moves the members, as the ensemble weighs them: /, "各成员依据之和，按其在合一模型中的权重："],
  [/integrated gradients, from a text whose tokens are hidden/g, "积分梯度，以隐去全部词元的文本为起点"],
  [/integrated gradients, from a picture of its mean colour/g, "积分梯度，以平均色的图片为起点"],
  [/, (\d+) steps were not enough/g, "，$1 步仍未收敛"],
  [/; only the first (\d+) and the last (\d+) tokens are read/g, "；仅读取前 $1 个和后 $2 个词元"],
  [/contribution of each character n-gram, shared by its characters/g, "各字符 n 元组的贡献，由其中各字符均分"],
  [/coefficient times distance from the mean colour/g, "系数乘以与平均色之差"],
  [/([\w-]+) \(/g, (_, family) => `${FAMILIES[family] ?? family}（`],
  [/\)/g, "）"],
  [/; /g, "；"],
];

/** How an explanation was found, in both languages. */
export const method = (text) => [text, METHODS.reduce((zh, [pattern, words_]) => zh.replace(pattern, words_), text)];

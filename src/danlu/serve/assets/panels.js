// The board's panels: what each takes from the board's data, and how it is drawn.

import { histogram, interval, latency, traffic } from "/assets/charts.js";
import { h, table } from "/assets/dom.js";
import { reason } from "/assets/terms.js";
import { duration, integer, moment, pValue, percent, signed } from "/assets/words.js";

const SIGNALS = {
  length: ["length", "长度"], characters: ["characters", "字符"], unknown: ["unknown tokens", "未知词元"],
  brightness: ["brightness", "亮度"], contrast: ["contrast", "对比度"], embedding: ["content (embedding)", "内容（向量）"],
  classes: ["classes", "类别"], confidence: ["confidence", "置信度"], accuracy: ["estimated accuracy", "估计准确率"],
  written: ["tokens written", "生成长度"], logprob: ["log-probability", "对数概率"],
  latency: ["latency", "延迟"], failures: ["failures", "失败"],
};
const DECISIONS = {
  continue: ["not decided yet", "尚未决定"],
  superior: ["the challenger is better", "挑战者更好"],
  inferior: ["the challenger is worse", "挑战者更差"],
  equivalent: ["no difference that matters", "没有实质差别"],
  inconclusive: ["inconclusive", "没有结论"],
};
/** What the size of a change is measured in, where it is no plain number: seconds, or a share. */
const seconds = { write: duration, beyond: (x) => (x < 0 ? `−${duration(-x)}` : `+${duration(x)}`) };
const share = { write: (x) => percent(x), beyond: (x) => `${signed(100 * x, 1)}%` };
const MEASURES = { latency: seconds, failures: share, accuracy: share };
const PLAIN = { write: (x) => x.toFixed(3), beyond: (x) => signed(x, 3) };
const measure = (signal) => MEASURES[signal] ?? PLAIN;
const MODES = { live: ["each user is answered by one of the two", "每个用户由其中一个模型应答"], shadow: ["both answer, the champion’s is shown", "两者都应答，显示冠军的回答"] };
const ALIASES = { champion: ["champion", "冠军"], challenger: ["challenger", "挑战者"], latest: ["latest", "最新"], gold: ["gold set", "金标准集"] };
const nameOf = (id) => id.split("@")[0];
const both = (value) => [value, value];
const written = (value, write) => (value === null || value === undefined ? "–" : write(value)); // not known yet
const hash = (digest) => h("code", { translate: "no", title: both(digest) }, digest.slice(0, 12));

/** What stands where there is nothing yet: what will be here, and the command that brings it. */
export const emptyState = ({ words, command }) => h("div", {}, h("p", { class: "empty", say: words }), command && h("code", { class: "cmd", translate: "no" }, command));

const asTable = (...tables) => h("details", {}, h("summary", { say: ["As a table", "表格"] }), h("div", { class: "scroll", tabindex: 0, role: "group", label: ["Table", "表格"] }, tables));
const legend = (...items) => h("p", { class: "note legend" }, items.map(([style, words]) => h("span", { class: `key ${style}`, say: words })));
const tile = (k, v, s) => h("div", { class: "tile" }, h("div", { class: "k", say: k }), h("div", { class: "v", translate: "no" }, v), h("div", { class: "s", say: s }));

/** A question to the model on the command line. */
function example({ id, task }) {
  const [path, more] = task === "language-modelling" ? ["/v1/completions", '"prompt": "..."'] : ["/predict", '"inputs": ["..."]'];
  return `curl -H 'content-type: application/json' -d '{"model": "${id}", ${more}}' ${location.origin}${path}`;
}

/** How far back the board looks, by the length of its buckets. */
function period(seconds) {
  if (seconds <= 60) return ["in the last hour", "最近一小时"];
  return seconds <= 1200 ? ["in the last day", "最近一天"] : ["in the last 30 days", "最近 30 天"];
}

const heads = (...words) => words.map(([en, zh], i) => ({ words: [en, zh], number: i > 0 }));

export const tiles = {
  wide: true,
  inset: 0,
  of: ({ traffic: buckets, errors, latency: times, estimated_accuracy: accuracy, feedback, bucket }) => ({ buckets, errors, times, accuracy, feedback, bucket }),
  draw({ buckets, errors, times, accuracy, feedback, bucket: seconds }) {
    const [en, zh] = period(seconds);
    const n = buckets.reduce((sum, bucket) => sum + bucket.n, 0);
    const judged = feedback.right + feedback.wrong;
    return h("div", { class: "tiles" },
      tile(["requests", "请求"], integer(n), [`${en}, ${integer(errors)} failed`, `${zh}，失败 ${integer(errors)}`]),
      tile(["median latency", "延迟中位数"], duration(times.p50),
        n ? [`95% within ${duration(times.p95)}`, `95% 在 ${duration(times.p95)} 以内`] : ["not asked yet", "尚无请求"]),
      tile(["estimated accuracy", "估计准确率"], accuracy ? percent(accuracy.value) : "–",
        accuracy ? both(`[${percent(accuracy.low)}, ${percent(accuracy.high)}]`) : ["not estimated yet", "尚未估计"]),
      tile(["said to be right", "反馈为正确"], judged ? percent(feedback.right / judged, 0) : "–",
        [`of ${integer(judged)} judged, ${integer(feedback.corrected)} corrected`, `${integer(judged)} 条评判，${integer(feedback.corrected)} 条更正`]));
  },
};

/** The panels in their order: `of` takes from the data what one shows, `draw` shows it, `empty` says what will be here. */
export const PANELS = {
  traffic: {
    title: ["Requests and failures", "请求与失败"],
    of: ({ traffic: buckets, bucket }) => ({ buckets, seconds: bucket }),
    isEmpty: ({ buckets }) => !buckets.length,
    empty: (model) => ({ words: ["Nobody has asked yet. Requests of each minute will be here: ask something at Try, or", "还没有请求。这里将显示每分钟的请求：在“试用”中提问，或者"], command: example(model) }),
    draw({ buckets, seconds }, width) {
      const [n, failed] = ["n", "n_failed"].map((key) => buckets.reduce((sum, bucket) => sum + bucket[key], 0));
      const told = [`${integer(n)} requests, ${integer(failed)} of them failed.`, `${integer(n)} 个请求，其中 ${integer(failed)} 个失败。`];
      return h("div", {}, traffic(width, buckets, seconds, this.title, told),
        legend(["fine", ["answered", "已应答"]], ["bad", ["failed", "失败"]]),
        asTable(table(heads(["from", "起"], ["requests", "请求"], ["failed", "失败"]),
          buckets.map(({ start, n: of, n_failed: bad }) => [moment(start), integer(of), integer(bad)]))));
    },
  },
  latency: {
    title: ["Time to the answer", "应答时间"],
    of: ({ traffic: buckets, latency: times, bucket }) => ({ buckets, times, seconds: bucket }),
    isEmpty: ({ buckets }) => !buckets.some(({ p50 }) => p50 !== null && p50 !== undefined),
    empty: () => ({ words: ["Half, 95% and 99% of answers within how many seconds: will be here with the first request.", "有了第一个请求后，这里显示 50%、95%、99% 的应答在多少秒以内。"] }),
    draw({ buckets, times, seconds }, width) {
      const { p50, p95, p99 } = times;
      const told = [`Half of the answers within ${duration(p50)}, 95% within ${duration(p95)}, 99% within ${duration(p99)}.`, `一半应答在 ${duration(p50)} 以内，95% 在 ${duration(p95)} 以内，99% 在 ${duration(p99)} 以内。`];
      return h("div", {}, latency(width, buckets, seconds, duration, this.title, told),
        legend(["p50", both(`p50 ${duration(p50)}`)], ["p95", both(`p95 ${duration(p95)}`)], ["p99", both(`p99 ${duration(p99)}`)]),
        asTable(table(heads(["from", "起"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"]),
          buckets.map((bucket) => [moment(bucket.start), duration(bucket.p50), duration(bucket.p95), duration(bucket.p99)]))));
    },
  },
  alerts: {
    wide: true,
    title: ["Alerts", "警报"],
    of: (data) => data.alerts,
    isEmpty: (alerts) => !alerts.length,
    empty: () => ({ words: ["No alert. What drifts beyond chance and beyond what matters is told here, and in the log.", "没有警报。超出偶然且值得关注的漂移会显示在这里，并写入日志。"] }),
    draw: (alerts) => h("ul", { class: "alerts" }, alerts.map((alert) =>
      h("li", {}, h("b", { say: SIGNALS[alert.signal] ?? both(alert.signal) }), " ", h("span", { say: told(alert) }), " ",
        h("span", { class: "note", say: moment(alert.time) }), alert.digest ? [" ", hash(alert.digest)] : null))),
  },
  drift: {
    wide: true,
    title: ["Has anything changed?", "有变化吗？"],
    of: ({ drift, windows }) => ({ drift, windows }),
    isEmpty: ({ drift }) => !drift?.length,
    empty: (model, { windows }) => (windows ? { words: [`${integer(windows)} windows of requests so far. The first ones are what later ones will be compared with: signals come when there are enough.`, `目前有 ${integer(windows)} 个窗口的请求。最初的窗口作为日后比较的参照，数量足够后显示各信号。`] } : { words: ["Nothing is watched yet. How far requests and answers have moved from what the model was tested on will be here:", "尚未监控。这里将显示请求与回答相对测试数据的偏移："], command: `danlu monitor ${nameOf(model.id)}` }),
    draw: ({ drift, windows }) => h("div", {},
      h("p", { class: "note", say: [`After ${windows} windows of requests. An alarm needs both: more than chance allows, at a rate that holds however often it is looked at, and a size that matters.`, `已观察 ${windows} 个窗口。警报需同时满足：超出偶然（无论查看多少次，误报率都成立），且幅度值得关注。`] }),
      h("div", { class: "scroll", tabindex: 0, role: "group", label: ["Signals", "信号"] }, table(
        heads(["signal", "信号"], ["state", "状态"], ["effect", "幅度"], ["beyond the usual", "超出平常"], ["p, corrected", "p（校正）"]),
        drift.map(({ signal, effect, excess, p_adjusted: p, alarm }) => [SIGNALS[signal] ? h("span", { say: SIGNALS[signal] }) : signal,
          h("span", { class: alarm ? "badge no" : "badge yes", say: alarm ? ["alarm", "警报"] : ["as usual", "正常"] }),
          written(effect, (x) => both(measure(signal).write(x))), written(excess, (x) => both(measure(signal).beyond(x))), written(p, pValue)])))),
  },
  confidence: {
    title: ["How sure it was", "把握程度"],
    of: (data) => bins(data.confidence),
    isEmpty: (found) => !found.some(({ n }) => n),
    empty: () => ({ words: ["How many answers were given with which confidence: will be here with the first answers of a classifier.", "分类器有了回答后，这里显示各置信度的回答数量。"] }),
    draw(found, width) {
      const n = found.reduce((sum, bin) => sum + bin.n, 0);
      const sure = found.filter(({ low }) => low >= 0.9 - 1e-9).reduce((sum, bin) => sum + bin.n, 0);
      const told = [`Of ${integer(n)} answers ${percent(sure / n, 0)} had a confidence of 90% or more.`, `${integer(n)} 个回答中，${percent(sure / n, 0)} 的置信度不低于 90%。`];
      return h("div", {}, histogram(width, found, this.title, told), h("p", { class: "note", say: told }),
        asTable(table(heads(["confidence", "置信度"], ["answers", "回答"]), found.map(({ low, high, n: of }) => [`${percent(low, 0)} – ${percent(high, 0)}`, integer(of)]))));
    },
  },
  labels: {
    title: ["What it answered", "回答的类别"],
    of: (data) => data.labels,
    isEmpty: (labels) => !Object.keys(labels).length,
    empty: () => ({ words: ["How often each class was answered: will be here with the first answers of a classifier.", "分类器有了回答后，这里显示各类别的次数。"] }),
    draw(labels) {
      const all = Object.values(labels).reduce((a, b) => a + b, 0);
      return h("table", { class: "bars" },
        h("thead", { class: "unseen" }, h("tr", {}, h("th", { scope: "col", say: ["class", "类别"] }), h("td", {}), h("th", { scope: "col", say: ["answers", "回答"] }))),
        h("tbody", {}, Object.entries(labels).sort(([, a], [, b]) => b - a).map(([name, n]) => {
          const bar = h("span", { class: "bar" });
          bar.style.setProperty("--share", `${(100 * n) / all}%`);
          return h("tr", {}, h("th", { scope: "row", translate: "no" }, name), h("td", { class: "track", "aria-hidden": "true" }, bar),
            h("td", { class: "n", translate: "no" }, `${integer(n)} · ${percent(n / all)}`));
        })));
    },
  },
  accuracy: {
    title: ["How often it is thought to be right", "估计的准确率"],
    of: (data) => data.estimated_accuracy,
    isEmpty: (found) => !found,
    empty: (model) => ({ words: ["From its confidence it can be estimated how often a classifier is right, before anybody labels:", "在有人标注之前，可由置信度估计分类器的准确率："], command: `danlu monitor ${nameOf(model.id)}` }),
    draw({ value, low, high }, width) {
      const told = [`About ${percent(value)}; with 95% confidence between ${percent(low)} and ${percent(high)}. It cannot see a model that is wrong as sure as ever: only labels tell.`, `约 ${percent(value)}；95% 置信区间为 ${percent(low)} 至 ${percent(high)}。若模型错得同样自信，估计看不出来，只有标注能说明。`];
      return h("div", {}, interval(width, { value, low, high, ends: [Math.min(0.5, low), 1], write: (x, exact) => percent(x, exact ? 1 : 0) }, this.title, told), h("p", { class: "note", say: told }));
    },
  },
  experiment: {
    title: ["Challenger against champion", "挑战者与冠军的对比"],
    of: (data) => data.experiment,
    isEmpty: (found) => !found,
    empty: (model) => ({ words: ["No comparison is under way. Whether a challenger is better will be here, as far as it is known at any time:", "当前没有对比。这里将随时显示挑战者是否更好："], command: `danlu promote ${nameOf(model.id)} trial=live margin=0.02 budget=2000` }),
    draw: (found, width, { name }) => comparison(found, width, name),
  },
  history: {
    wide: true,
    title: ["Who decided what", "变更记录"],
    of: (data) => data.history,
    isEmpty: (history) => !history.length,
    empty: (model) => ({ words: ["Promotions and rollbacks will be here: who, when, why, and by which evidence.", "这里将显示上线与回滚：何人、何时、为何、依据什么。"], command: `danlu promote ${nameOf(model.id)}` }),
    draw: (history) => h("ol", { class: "history" }, history.map(({ time, alias, digest, reason: why, by, evidence }) =>
      h("li", {}, h("span", { class: "when", say: moment(time) }),
        h("div", {}, h("p", {}, h("b", { say: ALIASES[alias] ?? both(alias) }), " → ", hash(digest), by ? h("span", { class: "note", say: [` by ${by}`, ` 由 ${by}`] }) : null),
          h("p", { translate: "no", say: reason(why) }),
          evidence?.length ? h("p", { class: "note" }, h("span", { say: ["evidence: ", "依据："] }), evidence.map((digest_, i) => [i ? ", " : "", hash(digest_)]).flat()) : null)))),
  },
};

/** An alert in both languages; the event’s own message is for logs, where nothing stands beside it. */
function told({ signal, window, n, effect, excess, p_adjusted: p }) {
  const [size, beyond] = [effect, excess].map(measure(signal).write);
  return [`changed by window ${integer(window)} (${integer(n)} seen): effect ${size}, ${beyond} beyond the usual (p = ${pValue(p)})`,
    `到第 ${integer(window)} 个窗口（共 ${integer(n)} 条）已有变化：幅度 ${size}，超出平常 ${beyond}（p = ${pValue(p)}）`];
}

/** The histogram’s bins, from 0 to 1. */
function bins(counts) {
  return counts.map((n, i) => ({ low: i / counts.length, high: (i + 1) / counts.length, n }));
}

function comparison({ margin, budget, level, mode, n, n_challenger: ofChallenger, difference, low, high, decision, challenger, by, since, why, n_since: after }, width, name) {
  const points = (share) => (Math.abs(share) < 1e-9 ? "0" : signed(100 * share, 1));
  const known = Number.isFinite(difference) && Number.isFinite(low) && Number.isFinite(high);
  const [en, zh] = DECISIONS[decision] ?? both(decision);
  const state = decision === "continue" ? "" : decision === "superior" ? " yes" : " no";
  const told = known && [
    `Challenger minus champion: ${points(difference)} points, between ${points(low)} and ${points(high)} with ${percent(1 - level, 0)} confidence at all times together. Less than ${(100 * margin).toFixed(1)} points (shaded) does not matter.`,
    `挑战者减冠军：${points(difference)} 个百分点，区间 ${points(low)} 至 ${points(high)}，在任何时刻都以 ${percent(1 - level, 0)} 的置信成立。小于 ${(100 * margin).toFixed(1)} 个百分点（阴影）视为无差别。`];
  const unit = mode === "shadow" ? ["requests", "请求"] : ["users", "用户"];
  const bar = h("progress", { max: budget, value: Math.min(n, budget), label: ["Budget spent", "已用预算"] });
  return h("div", {},
    h("p", { class: "said small" }, h("span", { class: `badge${state}`, say: [en, zh] })),
    known ? interval(width, { value: difference, low, high, band: margin, zero: true, write: points }, ["Difference, in points", "差异（百分点）"], told) : null,
    h("p", { class: "note", say: known ? told : ["No outcome is known yet: feedback decides.", "还没有结果：由反馈决定。"] }),
    h("div", { class: "progress" }, bar, h("span", { class: "note", say: [`${integer(n)} of ${integer(budget)} ${unit[0]}, ${integer(ofChallenger)} by the challenger`, `${integer(n)} / ${integer(budget)} ${unit[1]}，其中挑战者 ${integer(ofChallenger)}`] })),
    decision === "continue" ? null : h("p", { class: "note" }, h("span", { say: ["Decided; the champion is still the same until somebody acts on it: ", "已有结论；在执行之前冠军不变："] }), h("code", { translate: "no" }, `danlu promote ${name}`)),
    decision === "continue" ? null : h("p", { class: "note", say: [`All of this is as it was when it was decided; ${integer(after)} ${unit[0]} came since and change nothing about it.`, `以上均为作出决定时的情况；此后又有 ${integer(after)} 个${unit[1]}，不影响结论。`] }),
    h("p", { class: "note" }, h("span", { say: ["challenger ", "挑战者 "] }), hash(challenger),
      h("span", { say: [`; ${MODES[mode][0]}. Begun by ${by}, ${moment(since)[0]}: `, `；${MODES[mode][1]}。由 ${by} 于 ${moment(since)[1]} 开始：`] }),
      h("span", { translate: "no" }, why)));
}

// Pictures of numbers, as SVG: each is told in words too, and takes its colours from the page.

import { svg } from "/assets/dom.js";
import { same, say, unique } from "/assets/words.js";

const LEFT = 46;
const RIGHT = 16;
const TOP = 10;
const FOOT = 24;

/** A linear scale. */
const linear = (low, high, start, end) => (value) => start + ((value - low) / (high - low || 1)) * (end - start);

/** About n round values between two. */
export function ticks(low, high, n) {
  const raw = (high - low || 1) / Math.max(n, 1);
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((each) => each >= raw * 0.999);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index <= Math.floor(high / step + 1e-9); index++) found.push(index * step);
  return found;
}

function picture(width, height, name, told, parts) {
  const [title, text] = [`t${unique()}`, `d${unique()}`];
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": `${title} ${text}` },
    say(svg("title", { id: title }), name), say(svg("desc", { id: text }), told), parts);
}

const words = (x, y, text, more = {}) => say(svg("text", { x, y, ...more }), Array.isArray(text) ? text : same(text));

function rows(y, values, width, write) {
  return values.flatMap((value) => [
    svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
    words(LEFT - 6, y(value) + 3.5, write(value), { class: "tick", "text-anchor": "end" }),
  ]);
}

const clock = (time) => new Date(1000 * time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = (time) => new Date(1000 * time).toLocaleDateString("sv-SE", { month: "2-digit", day: "2-digit" });

function times(x, first, last, height, width) {
  const span = last - first;
  const step = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000].find((each) => span / each <= width / 80) ?? 864000;
  const found = [];
  const offset = step > 3600 ? 60 * new Date(1000 * first).getTimezoneOffset() : 0; // days begin at midnight here
  for (let time = Math.ceil((first - offset) / step) * step + offset; time <= last; time += step) {
    found.push(words(x(time), height - 8, step < 86400 ? clock(time) : day(time), { class: "tick", "text-anchor": "middle" }));
  }
  return found;
}

/** Requests and failures per bucket of time. */
export function traffic(width, buckets, seconds, name, told) {
  const height = 180;
  const [first, last] = [buckets[0].start, buckets.at(-1).start + seconds];
  const most = Math.max(...buckets.map(({ n }) => n), 1);
  const x = linear(first, last, LEFT, width - RIGHT);
  const y = linear(0, most, height - FOOT, TOP);
  const wide = Math.max(1, Math.min(18, x(first + seconds) - x(first) - 1));
  const bar = (at, low, high, style) => svg("rect", { class: style, x: at, width: wide, y: y(high), height: Math.max(0, y(low) - y(high)) });
  return picture(width, height, name, told, [
    rows(y, ticks(0, most, 4).filter(Number.isInteger), width, String),
    times(x, first, last, height, width),
    buckets.flatMap(({ start, n, n_failed: failed }) => [
      bar(x(start), failed, n, "bar-fine"), failed ? bar(x(start), 0, failed, "bar-bad") : null].filter(Boolean)),
  ].flat());
}

/** Buckets that follow each other; where nobody asked, nothing is known, and no line leads across it. */
function stretches(buckets, seconds) {
  const found = [];
  for (const bucket of buckets) {
    const last = found.at(-1)?.at(-1);
    if (last && bucket.start - last.start < 1.5 * seconds) found.at(-1).push(bucket);
    else found.push([bucket]);
  }
  return found;
}

/** Latencies over time, three lines; `write` says seconds. */
export function latency(width, buckets, seconds, write, name, told) {
  const height = 180;
  const timed = buckets.filter(({ p50 }) => p50 !== null && p50 !== undefined);
  const [first, last] = [buckets[0].start, buckets.at(-1).start + seconds];
  const most = Math.max(...timed.map(({ p99 }) => p99), 1e-6);
  const x = linear(first, last, LEFT, width - RIGHT);
  const y = linear(0, most, height - FOOT, TOP);
  const line = (key) => {
    return stretches(timed, seconds).flatMap((stretch) => {
      const points = stretch.map((bucket) => [x(bucket.start + seconds / 2), y(bucket[key])]);
      return points.length > 1
        ? svg("polyline", { class: `curve ${key}`, points: points.map((point) => point.map((v) => v.toFixed(1)).join(",")).join(" ") })
        : svg("circle", { class: `dot ${key}`, cx: points[0][0], cy: points[0][1], r: 3 });
    });
  };
  return picture(width, height, name, told, [
    rows(y, ticks(0, most, 4), width, write), times(x, first, last, height, width), ["p99", "p95", "p50"].flatMap(line)].flat());
}

/** How many answers had which confidence; bins are told by their lower and upper ends. */
export function histogram(width, bins, name, told) {
  const height = 160;
  const most = Math.max(...bins.map(({ n }) => n), 1);
  const x = linear(bins[0].low, bins.at(-1).high, LEFT, width - RIGHT);
  const y = linear(0, most, height - FOOT, TOP);
  return picture(width, height, name, told, [
    rows(y, ticks(0, most, 3).filter(Number.isInteger), width, String),
    bins.map(({ low, high, n }) => svg("rect", { class: "bar-fine", x: x(low) + 0.5, width: Math.max(1, x(high) - x(low) - 1), y: y(n), height: height - FOOT - y(n) })),
    ticks(bins[0].low, bins.at(-1).high, 5).map((value) => words(x(value), height - 8, `${Math.round(100 * value)}%`, { class: "tick", "text-anchor": "middle" })),
  ].flat());
}

/** An estimate with its interval on an axis; a shaded band where differences do not matter. */
export function interval(width, { value, low, high, band = null, zero = false, ends, write }, name, told) {
  const height = 84;
  const least = Math.min(low, ends?.[0] ?? low, band ? -band : low);
  const most = Math.max(high, ends?.[1] ?? high, band ?? high);
  const pad = (most - least) * 0.06 || 0.01;
  const x = linear(ends ? least : least - pad, ends ? most : most + pad, 22, width - 22);
  const middle = 34;
  return picture(width, height, name, told, [
    band && svg("rect", { class: "band", x: x(-band), width: x(band) - x(-band), y: 8, height: 50 }),
    svg("line", { class: "axis-line", x1: 22, x2: width - 22, y1: 58, y2: 58 }),
    zero && svg("line", { class: "mark", x1: x(0), x2: x(0), y1: 8, y2: 58 }),
    svg("line", { class: "whisker", x1: x(low), x2: x(high), y1: middle, y2: middle }),
    [low, high].map((end) => svg("line", { class: "whisker", x1: x(end), x2: x(end), y1: middle - 6, y2: middle + 6 })),
    svg("circle", { class: "dot", cx: x(value), cy: middle, r: 5.5 }),
    words(Math.min(width - 40, Math.max(40, x(value))), middle - 13, write(value, true), { class: "value", "text-anchor": "middle" }),
    ticks(ends ? least : least - pad, ends ? most : most + pad, Math.max(2, Math.floor(width / 110))).map((tick) =>
      words(Math.min(width - 24, Math.max(24, x(tick))), 76, write(tick), { class: "tick", "text-anchor": "middle" })),
  ].flat().filter(Boolean));
}

// Board: what is asked, how fast and how surely it is answered, what has changed, and which model is the better one.

import { ask } from "/assets/api.js";
import { button, h, trouble } from "/assets/dom.js";
import { emptyState, PANELS, tiles } from "/assets/panels.js";
import { moment, say } from "/assets/words.js";

const EVERY = 5000;

/** Builds the view, which refreshes itself until it is left, is hidden or somebody pauses it. `swapped` hears of a new model. */
export function board(view, model, swapped) {
  const state = { paused: false, left: false, timer: null, data: null, drawn: new Map() };
  const status = h("p", { class: "note updated" });
  const pause = button(["Pause", "暂停"], () => {
    state.paused = !state.paused;
    say(pause, state.paused ? ["Go on", "继续"] : ["Pause", "暂停"]);
    if (state.paused) clearTimeout(state.timer);
    else refresh();
    told();
  });
  const wrong = h("div", {});
  const grid = h("div", { class: "board" });
  view.replaceChildren(
    h("h1", { id: "title-board", tabindex: -1, say: ["How is it doing?", "运行情况如何？"] }),
    h("div", { class: "live" }, status, pause), wrong, grid);

  function told() {
    const at = state.data ? moment(state.data.now ?? Date.now() / 1000, false) : ["–", "–"];
    say(status, state.paused ? [`Paused. As of ${at[0]}.`, `已暂停。截至 ${at[1]}。`] : [`As of ${at[0]}; refreshed every ${EVERY / 1000} s.`, `截至 ${at[1]}；每 ${EVERY / 1000} 秒刷新。`]);
  }

  async function refresh() {
    clearTimeout(state.timer);
    try {
      const data = await ask(`/board?model=${encodeURIComponent(model.id)}`);
      if (state.left) return;
      state.data = data;
      if (data.digest && data.digest !== model.digest) swapped(data.digest);
      wrong.replaceChildren();
      draw();
    } catch (refusal) {
      if (!refusal.what) throw refusal;
      if (state.left) return;
      wrong.replaceChildren(trouble(refusal, refresh)); // what was known before stays below
      if (refusal.code === "no_key" || refusal.code === "scope_missing") return;
    }
    told();
    if (!state.paused && !document.hidden) state.timer = setTimeout(refresh, EVERY);
  }

  /** Draws anew only what changed: what somebody has opened or points at stays as it is. */
  function draw() {
    const width = Math.floor(grid.clientWidth);
    for (const [name, panel] of Object.entries({ tiles, ...PANELS })) {
      const place = state.drawn.get(name) ?? { element: panel.wide ? h("div", { class: "wide" }) : h("div", {}) };
      if (!state.drawn.has(name)) {
        state.drawn.set(name, place);
        grid.append(place.element);
      }
      const inner = Math.floor(place.element.clientWidth) - (panel.inset ?? 42);
      const key = JSON.stringify([panel.of(state.data), inner, width]);
      if (place.key === key) continue;
      const open = [...place.element.querySelectorAll("details")].map((each) => each.open);
      place.key = key;
      const filled = panel.of(state.data);
      const content = panel.isEmpty?.(filled) ? emptyState(panel.empty(model, filled)) : panel.draw(filled, Math.max(240, inner), state.data);
      place.element.replaceChildren(panel.title
        ? h("section", { class: "panel" }, h("h2", { class: "small", say: panel.title }), content)
        : content);
      place.element.querySelectorAll("details").forEach((each, i) => { each.open = open[i] ?? false; });
    }
  }

  const resized = new ResizeObserver(() => state.data && draw());
  resized.observe(grid);
  const shown = () => (document.hidden || state.paused ? clearTimeout(state.timer) : refresh());
  document.addEventListener("visibilitychange", shown);
  told();
  refresh();
  return () => {
    state.left = true;
    clearTimeout(state.timer);
    resized.disconnect();
    document.removeEventListener("visibilitychange", shown);
  };
}

// A picture: drawn with mouse, finger, pen or keys, or chosen from files; in the size that the model takes.

import { Refusal } from "/assets/api.js";
import { button, h } from "/assets/dom.js";
import { say } from "/assets/words.js";

const SIDE = 280;
const THICK = 20; // of SIDE; MNIST's strokes are about as thick against their picture
const STEP = 8; // of SIDE, by an arrow key
const FILLED = 20 / 28; // a digit fills so much of the picture, centred by its mass: as those of MNIST do

/** The pad. `picture()` gives the base64 that is sent and what it looks like; null where there is nothing. */
export function drawing(model, failed) {
  const [, height, width] = model.image_size ?? [1, 28, 28];
  const pad = h("canvas", { width: SIDE, height: SIDE, class: "pad", tabindex: 0, role: "img", "aria-describedby": "pad-help",
    label: ["Drawing pad", "画板"] });
  const state = { strokes: [], file: null, pen: { x: SIDE / 2, y: SIDE / 2, down: false }, dark: true, keys: false };
  const paint = () => show(pad, state);
  byPointer(pad, state, paint);
  byKeys(pad, state, paint);

  const file = h("input", { type: "file", accept: "image/*", id: "picture-file", class: "unseen" });
  const opened = async (chosen) => {
    if (!chosen) return;
    try {
      state.file = await createImageBitmap(chosen);
      state.strokes = [];
      paint();
    } catch {
      failed(new Refusal("no_picture", { detail: chosen.name }));
    }
    file.value = "";
  };
  file.addEventListener("change", () => opened(file.files[0]));
  pad.addEventListener("dragover", (event) => event.preventDefault());
  pad.addEventListener("drop", (event) => {
    event.preventDefault();
    opened(event.dataTransfer.files[0]);
  });

  const invert = button(["Invert", "反色"], () => {
    state.dark = !state.dark;
    invert.setAttribute("aria-pressed", !state.dark);
    paint();
  }, { "aria-pressed": "false", title: ["Swap light and dark: models of digits mostly know light ink on black", "互换明暗：数字模型多半学的是黑底白字"] });
  const undo = button(["Undo", "撤销"], () => { state.strokes.pop(); paint(); });
  const clear = button(["Clear", "清空"], () => { Object.assign(state, { strokes: [], file: null }); paint(); });
  const help = h("p", { class: "note", id: "pad-help" });
  say(help, [
    "Draw with mouse, finger or pen; with keys: arrows move the pen, space puts it down or lifts it. A file can be dropped here, too.",
    "用鼠标、手指或手写笔绘制；键盘：方向键移动画笔，空格落笔或提笔。也可以把文件拖到这里。",
  ]);
  paint();
  return {
    element: h("div", {}, pad, help),
    buttons: [undo, clear, invert, file, h("label", { for: "picture-file", class: "button", say: ["Choose a picture", "选择图片"] })],
    picture: () => finished(state, width, height),
  };
}

function show(pad, { strokes, file, pen, dark, keys }) {
  const brush = pad.getContext("2d");
  brush.fillStyle = dark ? "#000" : "#fff";
  brush.fillRect(0, 0, SIDE, SIDE);
  if (file) {
    brush.filter = dark ? "none" : "invert(1)";
    const scale = Math.min(SIDE / file.width, SIDE / file.height);
    const [w, h_] = [file.width * scale, file.height * scale];
    brush.drawImage(file, (SIDE - w) / 2, (SIDE - h_) / 2, w, h_);
    brush.filter = "none";
  }
  ink(brush, strokes, dark ? "#fff" : "#000");
  if (keys) {
    brush.strokeStyle = "#f0805f";
    brush.lineWidth = 2;
    brush.beginPath();
    brush.arc(pen.x, pen.y, THICK / 2 + 2, 0, 2 * Math.PI);
    brush.stroke();
    if (pen.down) {
      brush.fillStyle = "#f0805f";
      brush.fill();
    }
  }
}

function ink(brush, strokes, colour) {
  Object.assign(brush, { strokeStyle: colour, lineWidth: THICK, lineCap: "round", lineJoin: "round" });
  for (const [first, ...rest] of strokes) {
    brush.beginPath();
    brush.moveTo(first.x, first.y);
    for (const { x, y } of rest.length ? rest : [first]) brush.lineTo(x, y);
    brush.stroke();
  }
}

function byPointer(pad, state, paint) {
  let stroke = null;
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * SIDE) / box.width, y: ((event.clientY - box.top) * SIDE) / box.height };
  };
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    Object.assign(state, { file: null, keys: false });
    state.strokes.push((stroke = [at(event)]));
    paint();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    // A fast pen has been in more places than it is told of.
    stroke.push(...(event.getCoalescedEvents?.() ?? []).map(at), at(event));
    paint();
  });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { stroke = null; });
}

function byKeys(pad, state, paint) {
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  pad.addEventListener("keydown", (event) => {
    const { pen } = state;
    if (event.key === " ") {
      event.preventDefault();
      pen.down = !pen.down;
      if (pen.down) {
        state.file = null;
        state.strokes.push([{ x: pen.x, y: pen.y }]);
      }
    } else if (moves[event.key]) {
      event.preventDefault();
      const [dx, dy] = moves[event.key];
      pen.x = Math.min(SIDE, Math.max(0, pen.x + dx));
      pen.y = Math.min(SIDE, Math.max(0, pen.y + dy));
      if (pen.down) (state.strokes.at(-1) ?? state.strokes[state.strokes.push([]) - 1]).push({ x: pen.x, y: pen.y });
    } else {
      return;
    }
    state.keys = true;
    paint();
  });
  pad.addEventListener("blur", () => {
    Object.assign(state, { keys: false });
    state.pen.down = false;
    paint();
  });
}

function blank(width, height, colour) {
  const seen = new OffscreenCanvas(width, height);
  const brush = seen.getContext("2d", { alpha: false, willReadFrequently: true });
  brush.fillStyle = colour;
  brush.fillRect(0, 0, width, height);
  Object.assign(brush, { imageSmoothingEnabled: true, imageSmoothingQuality: "high" });
  return [seen, brush];
}

async function finished({ strokes, file, dark }, width, height) {
  if (!file && !strokes.length) return null;
  const [seen, brush] = blank(width, height, dark ? "#000" : "#fff");
  if (file) {
    brush.filter = dark ? "none" : "invert(1)";
    brush.drawImage(file, 0, 0, width, height); // stretched, as training stretches what is of another size
  } else {
    centred(brush, strokes, dark, width, height);
  }
  const content = new Uint8Array(await (await seen.convertToBlob({ type: "image/png" })).arrayBuffer());
  return { base64: btoa(Array.from(content, (byte) => String.fromCharCode(byte)).join("")), seen };
}

/** The drawing, scaled to its usual share of the picture and moved so that the middle of its mass is in the middle. */
function centred(brush, strokes, dark, width, height) {
  const points = strokes.flat();
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [left, top] = [Math.min(...xs) - THICK / 2, Math.min(...ys) - THICK / 2];
  const [w, h_] = [Math.max(...xs) + THICK / 2 - left, Math.max(...ys) + THICK / 2 - top];
  const scale = (FILLED * Math.min(width, height)) / Math.max(w, h_);
  const [large, pen] = blank(SIDE, SIDE, dark ? "#000" : "#fff");
  ink(pen, strokes, dark ? "#fff" : "#000");
  const pixels = pen.getImageData(0, 0, SIDE, SIDE).data;
  let [mass, sumX, sumY] = [0, 0, 0];
  for (let at = 0; at < pixels.length; at += 4) {
    const value = dark ? pixels[at] : 255 - pixels[at];
    const place = at / 4;
    mass += value;
    sumX += value * ((place % SIDE) + 0.5);
    sumY += value * (Math.floor(place / SIDE) + 0.5);
  }
  // The middle of the mass goes to the middle of the picture, as far as the whole drawing stays within it.
  const moved = (room, middle, from, size) => Math.min(room - 1 - scale * (from + size), Math.max(1 - scale * from, room / 2 - scale * middle));
  const dx = moved(width, sumX / mass, left, w);
  const dy = moved(height, sumY / mass, top, h_);
  brush.drawImage(large, dx, dy, SIDE * scale, SIDE * scale);
}

/** A picture's file in base64, on a canvas; the page's policy lets no data: address be loaded. */
export async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes]));
  const canvas = h("canvas", { width: picture.width, height: picture.height, class: "pixels large", role: "img", label: ["The picture in question", "待标注的图片"] });
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas;
}

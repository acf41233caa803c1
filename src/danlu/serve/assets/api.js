// Questions to the server, and its refusals in words.

import { kept, keep, unique } from "/assets/words.js";

const KEY = "danlu.key";

/** What is said of each code: [what, what to do], each in both languages. */
const REFUSALS = {
  unreachable: [["The server does not answer.", "服务没有应答。"], ["See whether danlu serve still runs, then try again. What you typed is still here.", "请确认 danlu serve 仍在运行，然后重试。你输入的内容还在。"]],
  invalid_api_key: [["This needs a key.", "此操作需要密钥。"], ["Ask whoever runs the server for one: danlu serve --new-key NAME.", "请向服务的管理者索取：danlu serve --new-key NAME。"]],
  scope_missing: [["This key is not meant for that.", "这个密钥没有相应权限。"], ["Ask whoever runs the server for one that is: danlu serve --new-key NAME scopes=[ask,metrics,label].", "请向服务的管理者索取：danlu serve --new-key NAME scopes=[ask,metrics,label]。"]],
  rate_limit_exceeded: [["This key was used too often.", "这个密钥使用过于频繁。"], ["Wait a moment, then try again.", "请稍候再试。"]],
  overloaded: [["More is asked than can be answered.", "当前请求过多。"], ["Wait a moment, then try again. What you typed is still here.", "请稍候再试。你输入的内容还在。"]],
  model_starting: [["The model is being started.", "模型正在启动。"], ["Wait a few seconds, then try again.", "请等待几秒后再试。"]],
  worker_lost: [["The model’s process ended while it worked on this.", "模型进程在处理时中断。"], ["It is started anew: try again.", "进程会重新启动，请再试一次。"]],
  deadline_exceeded: [["The answer took too long.", "应答超时。"], ["Try again, or with a shorter text.", "请再试一次，或缩短文本。"]],
  not_recorded: [["It could not be written down, so it was not answered.", "无法写入记录，因此未作应答。"], ["Tell whoever runs the server: the disk may be full.", "请告知服务的管理者：磁盘可能已满。"]],
  context_length_exceeded: [["The text is longer than the model can see.", "文本超出了模型的长度上限。"], ["Shorten it, or ask for less after it.", "请缩短文本，或减少续写长度。"]],
  limit_exceeded: [["This is more than is allowed here.", "超出了此处允许的上限。"], ["Shorten it, or ask for less.", "请缩短内容，或减少数量。"]],
  body_too_large: [["This is larger than is allowed here.", "内容超出允许的大小。"], ["Take a smaller picture or a shorter text.", "请使用更小的图片或更短的文本。"]],
  model_not_found: [["That model is not served any more.", "该模型已不再提供。"], ["Choose another one above, or load the page again.", "请在上方选择其他模型，或重新加载页面。"]],
  wrong_task: [["The model cannot be asked this.", "该模型不支持此操作。"], ["Choose another model above.", "请在上方选择其他模型。"]],
  request_not_found: [["The server does not know this answer any more.", "服务已找不到这次回答。"], ["Ask the model again, then judge the new answer.", "请重新提问，再评判新的回答。"]],
  id_taken: [["Something else was written down under this number.", "此编号下已有不同的记录。"], ["Load the page again, and say it once more.", "请重新加载页面后再提交。"]],
  workspace_unusable: [["The server cannot read its records.", "服务无法读取记录。"], ["Tell whoever runs it: what is wrong stands below.", "请告知服务的管理者，原因见下方。"]],
  keys_unreadable: [["The server cannot read its keys, and lets nobody in.", "服务无法读取密钥，暂不接受访问。"], ["Tell whoever runs it.", "请告知服务的管理者。"]],
  no_picture: [["This picture cannot be opened here.", "无法打开这张图片。"], ["Save it as PNG or JPEG, and choose it again.", "请另存为 PNG 或 JPEG 后重新选择。"]],
  no_key: [["Without a key nothing can be asked.", "没有密钥无法提问。"], ["Try again, and give the key.", "请重试并输入密钥。"]],
  broken_stream: [["The answer broke off.", "应答中途中断。"], ["What came so far is still here. Try again.", "已收到的内容仍在。请再试一次。"]],
};
const BY_STATUS = {
  404: [["This server has no such route.", "此服务没有该接口。"], ["It may be of another version than this page: load the page again.", "服务与页面的版本可能不同，请重新加载页面。"]],
  422: [["The server does not understand this.", "服务无法理解此请求。"], ["Look at what is said below.", "请查看下方说明。"]],
  503: [["The server cannot do this now.", "服务暂时无法处理。"], ["Wait a moment, then try again. What you typed is still here.", "请稍候再试。你输入的内容还在。"]],
};
const OTHERWISE = [["The server refused this.", "服务拒绝了此请求。"], ["Look at what is said below; what you typed is still here.", "请查看下方说明；你输入的内容还在。"]];

/** Why something was not done: `what` and `advice` in both languages, `detail` as the server said it. */
export class Refusal extends Error {
  constructor(code, { status = 0, detail = "", after = null } = {}) {
    super(detail || code);
    [this.what, this.advice] = REFUSALS[code] ?? BY_STATUS[status] ?? OTHERWISE;
    if (after) this.advice = [`${this.advice[0]} (${after} s)`, `${this.advice[1]}（${after} 秒）`];
    Object.assign(this, { code, status, detail });
  }
}

/** Who this browser is to the server, where no key says it: experiments answer it by one model all along. */
const visitor = kept("visitor") ?? `page-${unique()}`;
keep("visitor", visitor);

let asking = null;

/** Asks for a key in the dialog; resolves to whether one was given. Several who need one wait for the same. */
function keyFromPerson(wrong) {
  asking ??= new Promise((resolve) => {
    const [dialog, form, value] = ["key", "key-form", "key-value"].map((id) => document.getElementById(id));
    document.getElementById("key-wrong").hidden = !wrong;
    const end = (given) => {
      asking = null;
      form.onsubmit = document.getElementById("key-cancel").onclick = dialog.oncancel = null;
      value.value = "";
      dialog.close();
      resolve(given);
    };
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, value.value.trim());
      end(true);
    };
    document.getElementById("key-cancel").onclick = () => end(false);
    dialog.oncancel = () => end(false);
    dialog.showModal();
    value.focus();
  });
  return asking;
}

async function answer(path, { body, signal, keepalive = false }) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { "x-danlu-user": visitor };
    if (key) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const method = body === undefined ? "GET" : "POST";
    let found;
    try {
      found = await fetch(path, { method, headers, body: JSON.stringify(body), signal, keepalive, redirect: "error" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("unreachable");
    }
    if (found.status !== 401) return found;
    if (sessionStorage.getItem(KEY) !== key) continue; // another question brought one meanwhile
    if (!(await keyFromPerson(Boolean(key)))) throw new Refusal("no_key", { status: 401 });
  }
}

async function checked(found) {
  if (found.ok) return found;
  const said = await found.json().then((body) => body.error ?? {}, () => ({}));
  throw new Refusal(said.code, { status: found.status, detail: said.message ?? "", after: found.headers.get("retry-after") });
}

/** A question with one answer. */
export async function ask(path, body, more = {}) {
  const found = await checked(await answer(path, { body, ...more }));
  return found.json().catch(() => {
    throw new Refusal("unreachable");
  });
}

/** A question whose answer comes in parts (server-sent events). */
export async function* stream(path, body, signal) {
  const found = await checked(await answer(path, { body, signal }));
  const reader = found.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Refusal("broken_stream");
      const events = (waiting + value).split("\n\n");
      waiting = events.pop();
      for (const event of events) {
        const content = event.replace(/^data: ?/, "");
        if (content === "[DONE]") return;
        const part = JSON.parse(content);
        if (part.error) throw new Refusal(part.error.code, { detail: part.error.message });
        yield part;
      }
    }
  } catch (error) {
    if (error instanceof Refusal || error.name === "AbortError") throw error;
    throw new Refusal("broken_stream");
  } finally {
    reader.cancel().catch(() => {}); // it may have ended already
  }
}

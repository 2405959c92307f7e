// The dashboard's one script. Every page reads and every form works without it; it adds live updates, keys, copying, saved views and
// the tokens of a running job. It writes text, never HTML: what comes from the server as HTML was escaped there.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (name, props = {}, ...children) => {
  const element = Object.assign(document.createElement(name), props);
  element.append(...children);
  return element;
};
const clock = (at = new Date()) => at.toTimeString().slice(0, 8);

// What is hidden without a script.
const enhance = (root) => {
  for (const button of $$("button.copy[hidden]", root)) button.hidden = false;
};

// What scrolls within the page can be reached by keyboard.
const reach = () => {
  for (const box of $$(".scroll, pre")) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (scrolls && !$("a, button, input, summary", box)) box.tabIndex = 0;
  }
};

// ---- Live updates: the page is rendered on the server, and what differs is put in its place here. ----

const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id : "") || "";

// What the viewer is changing stays as it is.
const isTouched = (element) => {
  if (element === document.activeElement && element.matches("input, textarea, select")) return true;
  if (element.matches("input[type=checkbox], input[type=radio]")) return element.checked !== element.defaultChecked;
  if (element.matches("input:not([type=hidden]), textarea")) return element.value !== element.defaultValue;
  return element.matches("select, [data-keep], [data-stream]");
};

const morph = (have, want) => {
  if (have.isEqualNode(want)) return;
  if (have.nodeType !== want.nodeType || have.nodeName !== want.nodeName) {
    have.replaceWith(document.importNode(want, true));
    return;
  }
  if (have.nodeType !== 1) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  if (have.source && !want.dataset.stream) {
    // The stream has ended: what it told is in the page now.
    have.source.close();
    have.replaceWith(document.importNode(want, true));
    return;
  }
  if (isTouched(have)) return;
  const stays = (name) => name === "open" && have.nodeName === "DETAILS";
  for (const { name } of [...have.attributes]) {
    if (!want.hasAttribute(name) && !stays(name)) have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (have.getAttribute(name) !== value && !stays(name)) have.setAttribute(name, value);
  }
  morphChildren(have, want);
};

const morphChildren = (have, want) => {
  const keyed = new Map();
  for (const child of have.children) if (keyOf(child)) keyed.set(keyOf(child), child);
  let at = have.firstChild;
  for (const wanted of [...want.childNodes]) {
    const key = keyOf(wanted);
    const known = key ? keyed.get(key) : at && !keyOf(at) && at.nodeType === wanted.nodeType && at.nodeName === wanted.nodeName ? at : null;
    if (known) {
      keyed.delete(key);
      if (known === at) at = at.nextSibling;
      else have.insertBefore(known, at);
      morph(known, wanted);
    } else {
      const added = document.importNode(wanted, true);
      have.insertBefore(added, at);
      if (key && added.nodeName === "TR") added.classList.add("changed");
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
};

const update = (html) => {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  enhance(fresh);
  const focused = document.activeElement;
  for (const part of $$("main [data-live]")) {
    const wanted = $(`[data-live="${CSS.escape(part.dataset.live)}"]`, fresh);
    if (wanted) morph(part, wanted);
  }
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  reach();
  markRow();
  countChecked();
  listen();
};

const live = {
  source: null,
  paused: false,
  lostAt: null,
  timer: 0,
  word: $("#live"),
  trouble: $("#trouble"),

  say(word, state) {
    if (!this.word) return;
    this.word.hidden = false;
    if (this.word.textContent !== word) this.word.textContent = word;
    this.word.className = `live ${state}`;
  },
  well() {
    this.lostAt = null;
    if (this.trouble) this.trouble.hidden = true;
    this.say("Live", "on");
  },
  lost(reason, after = "Trying again …") {
    this.lostAt ??= clock();
    if (this.trouble) {
      this.trouble.textContent = `${reason} since ${this.lostAt}: what you see is from then. ${after}`;
      this.trouble.hidden = false;
    }
    this.say("Not live", "off");
  },
  open() {
    const at = document.body.dataset.liveSource;
    if (!at || this.paused || this.source || document.hidden) return;
    clearTimeout(this.timer);
    const source = (this.source = new EventSource(at));
    source.addEventListener("page", (event) => {
      this.well();
      update(event.data);
    });
    source.addEventListener("well", () => this.well());
    source.addEventListener("trouble", (event) => {
      this.lost(event.data === "429" ? "This key asks more often than it may" : `The API answers ${event.data}`);
    });
    source.addEventListener("gone", () => {
      this.close();
      this.lost("You are signed out", "");
      this.trouble?.append(" ", make("a", { href: location.href, textContent: "Sign in" }));
    });
    source.addEventListener("full", () => {
      this.close();
      this.say("Not live: as many pages as allowed are", "off");
      this.timer = setTimeout(() => this.open(), 30000);
    });
    source.onerror = () => {
      this.lost("The server cannot be reached");
      // After an answer that is no stream, browsers give up; we do not.
      if (source.readyState === EventSource.CLOSED) {
        this.close();
        this.timer = setTimeout(() => this.open(), 3000);
      }
    };
  },
  close() {
    this.source?.close();
    this.source = null;
  },
  pause(on) {
    this.paused = on;
    if (on) {
      this.close();
      this.say(`Paused at ${clock()}`, "");
    } else {
      this.say("Live", "on");
      this.open();
    }
    if (this.button) this.button.textContent = on ? "Resume updates" : "Pause updates";
  },
  start() {
    if (!document.body.dataset.liveSource) return;
    this.button = make("button", { type: "button", id: "live-pause", title: "Pause or resume live updates (p)", textContent: "Pause updates" });
    this.button.onclick = () => this.pause(!this.paused);
    this.word?.after(this.button);
    $("#as-of")?.remove();
    this.say("Live", "on");
    this.open();
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", () => this.open());
  },
};

// ---- The tokens of a running job. ----

const listen = () => {
  for (const place of $$("[data-stream]")) {
    if (place.source) continue;
    const source = (place.source = new EventSource(place.dataset.stream));
    let steps = new Map();
    const show = () => {
      const many = steps.size > 1;
      place.textContent = [...steps].map(([step, text]) => (many ? `── ${step}\n${text}` : text)).join("\n\n");
      place.scrollTop = place.scrollHeight;
    };
    const anew = () => {
      steps = new Map();
      show();
    };
    source.addEventListener("attempt_started", anew);
    source.addEventListener("gap", anew);
    source.addEventListener("token", (event) => {
      const { step, text } = JSON.parse(event.data);
      steps.set(step, (steps.get(step) || "") + text);
      show();
    });
    source.addEventListener("model_switched", (event) => {
      const { step, from, to } = JSON.parse(event.data);
      steps.set(step, `[${from} did not answer; ${to} goes on]\n`);
      show();
    });
    source.addEventListener("state", (event) => {
      if (!["succeeded", "dead", "cancelled"].includes(JSON.parse(event.data).state)) return;
      source.close();
      place.dispatchEvent(new CustomEvent("streamed", { bubbles: true }));
    });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED && !place.textContent) place.textContent = "The stream cannot be read.";
    };
    addEventListener("pagehide", () => source.close());
  }
};

// ---- Copying. ----

const copy = async (text) => {
  if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
  // Over plain http there is only the old way.
  const area = make("textarea", { value: text, className: "sr" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy-text], [data-copy]");
  if (button) {
    const text = button.dataset.copyText ?? $(button.dataset.copy)?.textContent ?? "";
    if (button.isBusy) return;
    button.isBusy = true;
    const kept = [...button.childNodes];
    const done = await copy(text).then(
      () => "✓",
      () => "✕",
    );
    button.replaceChildren(done);
    setTimeout(() => {
      button.replaceChildren(...kept);
      button.isBusy = false;
    }, 1200);
    return;
  }
  // A click elsewhere closes what was folded out over the page.
  for (const open of $$("details.who[open], details.pop[open]")) if (!open.contains(event.target)) open.open = false;
});

// ---- Rows: going through them, and choosing several. ----

let row = null;
const rows = () => $$("table.rows > tbody > tr");
const markRow = () => {
  for (const other of $$("tr.at")) if (other !== row) other.classList.remove("at");
  if (row?.isConnected) row.classList.add("at");
};
const go = (step) => {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(row);
  row = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)];
  markRow();
  row.scrollIntoView({ block: "nearest" });
};

const countChecked = () => {
  for (const place of $$("[data-check-count]")) {
    const boxes = $$(`[data-check="${CSS.escape(place.dataset.checkCount)}"]`);
    const on = boxes.filter((box) => box.checked).length;
    place.textContent = String(on);
    const all = $(`[data-check-all="${CSS.escape(place.dataset.checkCount)}"]`);
    if (all) {
      all.checked = on > 0 && on === boxes.length;
      all.indeterminate = on > 0 && on < boxes.length;
    }
  }
};
document.addEventListener("change", (event) => {
  const name = event.target.dataset?.checkAll;
  if (name) for (const box of $$(`[data-check="${CSS.escape(name)}"]`)) box.checked = event.target.checked;
  countChecked();
});

// ---- Saved views: names for addresses of this page, kept in this browser. ----

const savedViews = (place) => {
  const store = `longshore-views-${place.dataset.savedViews}`;
  const VIEWS_MAX = 20;
  const NAME_MAX = 40;
  const read = () => {
    try {
      const views = JSON.parse(localStorage.getItem(store) || "[]");
      return Array.isArray(views) ? views.filter((view) => typeof view?.name === "string" && typeof view?.query === "string") : [];
    } catch {
      return [];
    }
  };
  const write = (views) => {
    try {
      localStorage.setItem(store, JSON.stringify(views.slice(0, VIEWS_MAX)));
    } catch {
      // A browser that keeps nothing keeps no views.
    }
    draw();
  };
  const here = () => {
    const query = new URLSearchParams(location.search);
    query.delete("cursor");
    return query.toString();
  };
  const draw = () => {
    const list = make("ul", { className: "chips" });
    for (const view of read()) {
      const link = make("a", { href: `${location.pathname}?${view.query}`, textContent: view.name });
      if (view.query === here()) link.setAttribute("aria-current", "page");
      const drop = make("button", { type: "button", className: "copy", textContent: "✕" });
      drop.setAttribute("aria-label", `Forget the view ${view.name}`);
      drop.onclick = () => write(read().filter((other) => other.name !== view.name));
      list.append(make("li", {}, link, drop));
    }
    const name = make("input", { type: "text", maxLength: NAME_MAX, placeholder: "Name of this view", size: 18 });
    name.setAttribute("aria-label", "Name of this view");
    const form = make("form", { className: "inline" }, name, " ", make("button", { textContent: "Save view" }));
    form.onsubmit = (event) => {
      event.preventDefault();
      const called = name.value.trim();
      if (called) write([...read().filter((view) => view.name !== called), { name: called, query: here() }]);
    };
    list.append(make("li", {}, form));
    place.replaceChildren(list);
  };
  place.dataset.keep = "";
  draw();
};

// ---- Keys. ----

const pages = () => $$(".side a[data-key]").filter((link) => link.dataset.key !== "-");

const showKeys = () => {
  let dialog = $("#keys");
  if (!dialog) {
    const list = make("dl");
    const add = (keys, what) => {
      const names = keys.split(" ").flatMap((key) => [make("kbd", { textContent: key }), " "]);
      list.append(make("dt", {}, ...names), make("dd", { textContent: what }));
    };
    for (const link of pages()) add(`g ${link.dataset.key}`, link.textContent.trim());
    add("/", "To the filter");
    add("j k", "Next and previous row");
    add("Enter", "Open the row");
    add("x", "Choose the row");
    add("p", "Pause or resume live updates");
    add("?", "These shortcuts");
    add("Esc", "Close");
    const close = make("button", { type: "button", textContent: "Close" });
    dialog = make("dialog", { id: "keys" }, make("h2", { textContent: "Shortcuts", id: "keys-title" }), list, close);
    dialog.setAttribute("aria-labelledby", "keys-title");
    close.onclick = () => dialog.close();
    document.body.append(dialog);
  }
  if (dialog.open) dialog.close();
  else dialog.showModal();
};

let isGoing = -Infinity;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape") {
    for (const open of $$("details.who[open], details.pop[open], details.confirm[open]")) open.open = false;
    if (document.activeElement?.matches(".filter input")) document.activeElement.blur();
    return;
  }
  if (event.target.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
  if (event.key === "?") {
    event.preventDefault();
    return showKeys();
  }
  if ($("dialog[open]")) return;
  const wasGoing = performance.now() - isGoing < 1500;
  isGoing = -Infinity;
  if (wasGoing) {
    const link = pages().find((page) => page.dataset.key === event.key);
    if (link) location.href = link.href;
    return;
  }
  switch (event.key) {
    case "g":
      isGoing = performance.now();
      break;
    case "/": {
      const field = $(".filter input[type=search], .filter input[type=text], .filter input:not([type])");
      if (!field) return;
      event.preventDefault();
      field.focus();
      field.select();
      break;
    }
    case "j":
      go(1);
      break;
    case "k":
      go(-1);
      break;
    case "Enter":
      if (row?.isConnected && event.target === document.body) $("a", row)?.click();
      break;
    case "x":
      if (row?.isConnected) $("input[type=checkbox]", row)?.click();
      break;
    case "p":
      if (live.button) live.pause(!live.paused);
      break;
  }
});

// ---- Forms: one click is one form. ----

document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  // After the browser has read the form: a button that is off sends nothing of itself.
  setTimeout(() => {
    for (const button of $$("button", event.target)) button.disabled = true;
  });
});
addEventListener("pageshow", (event) => {
  if (event.persisted) for (const button of $$("form button:disabled")) button.disabled = false;
});

// Times are UTC; the title says what the clock on the wall said.
document.addEventListener("mouseover", (event) => {
  const time = event.target.closest?.("time[datetime]");
  const at = time && new Date(time.dateTime);
  if (at && !Number.isNaN(+at) && !time.title.includes("·")) time.title += ` · here ${at.toLocaleString()}`;
});

enhance(document);
reach();
addEventListener("resize", reach);
const keysButton = $("#keys-button");
if (keysButton) {
  keysButton.hidden = false;
  keysButton.onclick = showKeys;
}
for (const place of $$("[data-saved-views]")) savedViews(place);
countChecked();
listen();
live.start();

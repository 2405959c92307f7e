// Put into every document before its own scripts: what goes wrong is written down, and what the checks ask for is found here.
"use strict";
window.__check = {
  seen: [],

  // Wherever the page is wider than the screen: what sticks out, and does not scroll within itself.
  wide(width) {
    if (document.documentElement.scrollWidth <= width) return [];
    const scrolls = (element) => {
      for (let up = element.parentElement; up && up !== document.body; up = up.parentElement) {
        if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(up).overflowX)) return true;
      }
      return false;
    };
    const out = [...document.body.querySelectorAll("*")]
      .filter((element) => element.getBoundingClientRect().right > width + 0.5 && !scrolls(element))
      .slice(0, 5)
      .map((element) => `<${element.localName} class="${element.getAttribute("class") ?? ""}">`);
    return [`${document.documentElement.scrollWidth} px wide`, ...out];
  },

  // The page that is open, or one whose text somebody has.
  page(html) {
    return html === undefined ? document : new DOMParser().parseFromString(html, "text/html");
  },

  // Where the menu leads.
  menu(html) {
    return [...this.page(html).querySelectorAll("nav a[href^='/dashboard']")].map((link) => link.getAttribute("href"));
  },

  // What can be posted: addresses, and the fields as they stand.
  forms(html) {
    const path = (address) => address.replace(/#.*$/, "");
    return [...this.page(html).querySelectorAll("form")]
      .filter((form) => (form.getAttribute("method") ?? "").toLowerCase() === "post")
      .flatMap((form) => {
        const own = path(form.getAttribute("action") ?? location.pathname);
        const fields = [...new FormData(form)].filter(([, value]) => typeof value === "string");
        const buttons = [...form.elements].filter((one) => one.type === "submit");
        const posts = buttons.map((button) => ({
          action: path(button.getAttribute("formaction") ?? own),
          fields: button.name ? [...fields, [button.name, button.value]] : fields,
          words: button.textContent.trim(),
        }));
        return posts.length > 0 ? posts : [{ action: own, fields, words: "" }];
      });
  },

  // The button of the form that posts to an address, with the fields filled in and everything around it unfolded.
  button(action, fields, words) {
    const posts = (form, button) => (button.getAttribute("formaction") ?? form.getAttribute("action") ?? location.pathname) === action;
    for (const form of document.querySelectorAll("form")) {
      for (const button of form.elements) {
        if (button.type !== "submit" || !posts(form, button)) continue;
        if (!(button.textContent + (button.ariaLabel ?? "")).includes(words)) continue;
        this.fill(form, fields);
        this.unfold(button);
        return button;
      }
    }
    throw new Error(`no button "${words}" posts to ${action}; there are: ${this.forms().map((form) => `${form.action} "${form.words}"`).join(", ")}`);
  },

  fill(form, fields) {
    for (const [name, value] of Object.entries(fields)) {
      const all = [...form.elements].filter((element) => element.name === name);
      if (all.length === 0) {
        throw new Error(`no field ${name}; there are: ${[...form.elements].map((element) => element.name).join(", ")}`);
      }
      for (const element of all) {
        this.unfold(element);
        if (element.type === "radio" || element.type === "checkbox") element.checked = element.value === value || value === "on";
        else element.value = value;
        element.dispatchEvent(new Event("input", { bubbles: true }));
        element.dispatchEvent(new Event("change", { bubbles: true }));
      }
    }
  },

  unfold(element) {
    for (let up = element; up; up = up.parentElement) {
      if (up.localName === "details") up.open = true;
    }
  },

  // The first link, button or summary with these words.
  named(words) {
    const all = [...document.querySelectorAll("main a, main button, main summary, header button, header a")];
    const found = all.find((element) => element.innerText.trim().includes(words));
    if (!found) throw new Error(`nothing is called "${words}"; there are: ${all.map((element) => element.innerText.trim()).join(", ")}`);
    this.unfold(found.parentElement);
    return found;
  },

  // Whether a text stands on the page or in a field of it, with everything unfolded. In JSON, quotation marks stand behind a stroke, and
  // blanks are as the browser makes them.
  reads(text) {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    const plain = (words) => words.replaceAll("\\", "").replace(/\s+/g, " ").trim();
    const fields = [...document.querySelectorAll("input, textarea")].map((field) => field.value);
    return plain([document.body.innerText, ...fields].join("\n")).includes(plain(text));
  },

  // Whether somebody sees it.
  shown(selector) {
    return [...document.querySelectorAll(selector)].some((element) => element.checkVisibility({ visibilityProperty: true }));
  },
};
addEventListener("securitypolicyviolation", (event) => {
  window.__check.seen.push(`policy: ${event.effectiveDirective} ${event.blockedURI} ${event.sample}`);
});
addEventListener("error", (event) => window.__check.seen.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => window.__check.seen.push(`rejected: ${event.reason}`));
for (const name of ["alert", "confirm", "prompt"]) {
  window[name] = (text) => {
    window.__check.seen.push(`${name}: ${text}`);
    return false;
  };
}

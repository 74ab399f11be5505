// The page is whole without this: it adds sorting, filters, charts, and the switches of language and theme.
const root = document.documentElement;
const json = (id) => JSON.parse(document.getElementById(id).textContent);
const texts = json("texts");
const every = (selector, within = document) => [...within.querySelectorAll(selector)];
let language = root.lang.startsWith("zh") ? "zh" : "en";

const say = (key, values = {}) => {
  const text = texts[key] ? texts[key][language] : key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
};

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A file that was opened from disk may have no storage: then a choice lasts as long as the page.
const stored = {
  get(name) {
    try { return localStorage.getItem(`flagperf-${name}`); } catch { return null; }
  },
  set(name, value) {
    try { localStorage.setItem(`flagperf-${name}`, value); } catch { /* see above */ }
  },
};

// --- the libraries, started when they are first needed

const once = (make) => {
  let made;
  return () => (made ??= make());
};

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

const charts = once(async () => {
  for (const text of await unpack("library-bokeh")) {
    const script = element("script", text);
    document.head.append(script);
  }
  Bokeh.set_log_level("error");
  return Bokeh;
});

const tables = once(async () => {
  const address = URL.createObjectURL(new Blob(await unpack("library-itables"), { type: "text/javascript" }));
  const library = await import(address);
  URL.revokeObjectURL(address);
  return library.jQuery;
});

// --- language and theme

function speak(within) {
  for (const one of every("[data-t]", within)) one.textContent = say(one.dataset.t);
  for (const one of every("[data-t-placeholder]", within)) one.placeholder = say(one.dataset.tPlaceholder);
  for (const one of every("[data-t-label]", within)) one.setAttribute("aria-label", say(one.dataset.tLabel));
}

// What follows the heading in the title: the sessions' names.
const named = document.title.slice(say("title").length);

function translate() {
  document.title = say("title") + named;
  root.lang = language === "zh" ? "zh-CN" : "en";
  speak(document);
  for (const one of every("[data-language]")) one.setAttribute("aria-pressed", String(one.dataset.language === language));
  for (const one of enhanced.values()) { one.rows().invalidate("dom"); one.draw(false); label(one); }
  redraw();
}

function isDark() {
  const chosen = root.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function paint(choice) {
  if (choice === "auto") delete root.dataset.theme;
  else root.dataset.theme = choice;
  for (const one of every("[data-theme-choice]")) one.setAttribute("aria-pressed", String(one.dataset.themeChoice === choice));
  redraw();
}

// --- tables

const enhanced = new Map();
const wanted = new Map();

function label(api) {
  for (const heading of every("thead th", api.table().node())) {
    const title = heading.querySelector(".dt-column-title");
    const handle = heading.querySelector(".dt-column-order");
    if (title && handle) handle.setAttribute("aria-label", say("sort", { column: title.textContent.trim() }));
  }
  const output = document.querySelector(`[data-for="${api.table().node().id}"] output`);
  const empty = api.table().node().querySelector("td.dt-empty");
  if (empty) empty.textContent = say("rows.none");
  const info = api.page.info();
  if (output) output.textContent = say("rows", { shown: info.recordsDisplay, all: info.recordsTotal });
}

async function enhance(table) {
  let $;
  // A browser that cannot unpack the library shows the table as it is.
  try { $ = await tables(); } catch { return; }
  const rows = table.tBodies[0].rows.length;
  const api = $(table).DataTable({
    paging: rows > 1000, pageLength: 200, lengthChange: false, info: false, order: [], autoWidth: false, ordering: { indicators: true, handler: true },
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: rows > 1000 ? "paging" : null },
  });
  enhanced.set(table.id, api);
  api.search.fixed("verdict", (text, data, index) => {
    const verdict = wanted.get(table.id);
    return !verdict || api.row(index).node().dataset.verdict === verdict;
  });
  const controls = document.querySelector(`[data-for="${table.id}"]`);
  if (controls) {
    controls.hidden = false;
    controls.querySelector("input").addEventListener("input", (event) => api.search(event.target.value).draw());
    controls.querySelector("select")?.addEventListener("change", (event) => show(table.id, event.target.value));
  }
  api.on("draw", () => { label(api); follow(api); });
  label(api);
}

function show(id, verdict) {
  wanted.set(id, verdict);
  const select = document.querySelector(`[data-for="${id}"] select`);
  if (select) select.value = [...select.options].some((one) => one.value === verdict) ? verdict : "";
  enhanced.get(id)?.draw();
}

// The sections below a table show what the table shows.
function follow(api) {
  const kept = new Set(api.rows({ search: "applied" }).nodes().toArray().map((row) => row.dataset.section));
  for (const row of api.rows().nodes().toArray()) {
    const section = row.dataset.section && document.getElementById(row.dataset.section);
    if (section) section.hidden = !kept.has(row.dataset.section);
  }
}

async function more(button) {
  await ready;
  const row = button.closest("tr");
  const api = enhanced.get(button.closest("table").id);
  const isShown = button.getAttribute("aria-expanded") === "true";
  if (api) {
    const child = api.row(row).child;
    if (isShown) child.hide();
    else child(details(row)).show();
  } else if (isShown) row.nextElementSibling.remove();
  else {
    // Without the library of tables the row below is made by hand.
    const below = element("tr");
    const cell = element("td", null, { colspan: row.cells.length });
    cell.append(details(row));
    below.append(cell);
    row.after(below);
  }
  button.setAttribute("aria-expanded", String(!isShown));
  const plot = row.nextElementSibling?.querySelector(".plot");
  if (!isShown && plot) draw(plot);
}

// What is behind a row's last column is text until it is asked for, as the sections of cases are.
function details(row) {
  const made = document.createElement("template");
  made.innerHTML = row.querySelector("noscript").textContent;
  const box = made.content.querySelector(".child");
  if (document.getElementById(`samples-${row.id}`)) {
    const holder = figure(json(`samples-${row.id}`), element("div", null, { class: "charts" }));
    box.querySelector(".columns").after(holder);
  }
  speak(box);
  return box;
}

// --- sections

// The section's content is text until it is opened: see case.html.j2.
function fill(section) {
  const sleeping = section.querySelector("noscript");
  if (!sleeping) return;
  const made = document.createElement("template");
  made.innerHTML = sleeping.textContent;
  sleeping.replaceWith(made.content);
  speak(section);
}

function open(section) {
  fill(section);
  const holder = section.querySelector("[data-charts]");
  if (!section.open || !holder || holder.dataset.begun) return;
  holder.dataset.begun = "true";
  holder.replaceChildren();
  for (const chart of json(`charts-${holder.dataset.charts}`)) figure(chart, holder);
  // What is out of sight is drawn when it comes into sight.
  const watch = new IntersectionObserver((seen) => {
    for (const one of seen.filter((each) => each.isIntersecting)) { watch.unobserve(one.target); draw(one.target); }
  }, { rootMargin: "400px" });
  for (const plot of every(".plot", holder)) watch.observe(plot);
}

// A row that a filter or a page of its table hides is not in the document: the table is made to show it.
function reveal(name) {
  for (const [id, api] of enhanced) {
    const row = api.rows().nodes().toArray().find((one) => one.id === name);
    if (!row) continue;
    const input = document.querySelector(`[data-for="${id}"] input`);
    if (input) input.value = "";
    api.search("");
    show(id, "");
    const place = api.rows({ search: "applied", order: "applied" }).nodes().toArray().indexOf(row);
    const size = api.page.info().length;
    if (size > 0) api.page(Math.floor(place / size)).draw(false);
  }
}

function jump() {
  const name = location.hash && decodeURIComponent(location.hash.slice(1));
  if (name && !document.getElementById(name)) reveal(name);
  const target = name && document.getElementById(name);
  if (!target) return;
  if (target.matches("details")) { target.hidden = false; target.open = true; }
  target.scrollIntoView();
}

// With what is within it, for whoever prints.
function openAll(section, isOpen) {
  if (isOpen) fill(section);
  section.open = isOpen;
  for (const one of every("details", section)) one.open = isOpen;
}

// What is out of sight has not been drawn, and is printed all the same.
function drawAll() {
  for (const section of every("details.case[open]")) open(section);
  for (const plot of every("details.case[open] .plot, .child .plot")) if (!plot.dataset.drawn) draw(plot);
}

// --- begin

for (const one of every(".switches, .buttons")) one.hidden = false;
for (const one of every("button:disabled")) one.disabled = false;
for (const one of every("button.more")) one.hidden = false;
const ready = (async () => { for (const table of every("table.sortable")) await enhance(table); })();

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const link = event.target.closest('a[href^="#"]');
  if (link && link.hash === location.hash) jump();
  if (!button) return;
  const chosen = button.dataset;
  if (chosen.language) { language = chosen.language; stored.set("language", language); translate(); }
  if (chosen.themeChoice) { stored.set("theme", chosen.themeChoice); paint(chosen.themeChoice); }
  if (button.matches(".more")) more(button);
  if ("openAll" in chosen || "closeAll" in chosen) for (const one of every("details.case:not([hidden])")) openAll(one, "openAll" in chosen);
  if (chosen.show) {
    const verdict = button.getAttribute("aria-pressed") === "true" ? "" : chosen.show;
    for (const one of every("[data-show]")) one.setAttribute("aria-pressed", String(one.dataset.show === verdict));
    for (const id of enhanced.keys()) if (document.querySelector(`#${CSS.escape(id)} tbody tr[data-verdict]`) || wanted.has(id)) show(id, verdict);
  }
});
// The whole figure is under the pointer where the cell shows four digits.
document.addEventListener("mouseover", (event) => {
  const cell = event.target.closest?.("td[data-order]");
  if (cell && !cell.title) cell.title = cell.dataset.order;
});
document.addEventListener("toggle", (event) => { if (event.target.matches("details.case")) open(event.target); }, true);
addEventListener("beforeprint", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("hashchange", jump);

const offered = root.dataset.languages.split(" ");
const preferred = stored.get("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (offered.includes(preferred) && preferred !== language) { language = preferred; translate(); }
for (const one of every("[data-language]")) one.setAttribute("aria-pressed", String(one.dataset.language === language));
paint(stored.get("theme") ?? "auto");
ready.then(() => { jump(); performance.mark("flagperf-ready"); root.dataset.ready = "true"; });

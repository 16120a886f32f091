"use strict";
(() => {
const find = (id) => document.getElementById(id);
const read = (id) => JSON.parse(find(id).textContent);
const make = (tag, name = "", text = "") => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
};
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/* What is long is packed (gzip in base64), and unpacked while nobody waits for it. */
const unpacking = {};
const unpack = (id) => unpacking[id] ??= (async () => {
  const bytes = Uint8Array.from(atob(find(id).textContent), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).text();
})();
addEventListener("load", () => setTimeout(() => {
  for (const one of all("script[data-packed]")) unpack(one.id).catch(() => {}); /* told when drawn */
}));

/* Figures: drawn when they are first seen, again when the ground turns dark or light. Plotly is run
   for the first of them, so the first screen does not wait for it. */
const themes = read("themes");
const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
let printing = false;

const loadPlotly = async () => {
  if (window.Plotly) return;
  const text = await unpack("plotly");
  if (window.Plotly) return; /* another figure was faster */
  const code = make("script");
  code.textContent = text;
  document.head.append(code);
};
const specOf = async (id) => "packed" in find(id).dataset ? JSON.parse(await unpack(id)) : read(id);
const draw = async (plot) => {
  plot.drawn = true;
  try {
    await loadPlotly();
    const spec = await specOf(`figure-${plot.dataset.number}`);
    const template = themes[dark.matches && !printing ? "dark" : "light"];
    const layout = { ...spec.layout, template, dragmode: touch ? false : "zoom" };
    if (printing) layout.width = 660;
    const config = { displayModeBar: false, responsive: true, scrollZoom: false };
    const done = Plotly.react(plot, spec.data, layout, config);
    if (!plot.told && spec.data.some((trace) => trace.meta?.opens)) {
      plot.told = true;
      plot.classList.add("opens");
      plot.on("plotly_click", (event) => openStory(plot, event.points.filter(opensOf)));
    }
    return done;
  } catch (error) {
    console.error(error);
    plot.textContent = "This figure could not be drawn at this size; its numbers are below.";
  }
};
const drawSeen = (root) => {
  for (const plot of all(".plot", root)) if (!plot.drawn) draw(plot);
};
const drawAgain = () => {
  for (const plot of all(".plot")) if (plot.drawn) draw(plot);
};
const axes = (plot) => Object.entries(plot._fullLayout).filter(([name, axis]) =>
  /^[xy]axis\d*$/.test(name) && axis.range && !axis.fixedrange);
const setRanges = (plot, ranges) => {
  const change = {};
  for (const [name, axis] of axes(plot)) {
    const range = ranges(name[0], axis.range.map(Number));
    if (range) change[`${name}.range`] = range;
  }
  return Plotly.relayout(plot, change);
};
const zoom = (plot, factor) => setRanges(plot, (letter, [a, b]) => {
  if (letter === "y" && plot.dataset.both === "0") return null;
  const middle = (a + b) / 2;
  return [middle + (a - middle) * factor, middle + (b - middle) * factor];
});
const move = (plot, right, up) => setRanges(plot, (letter, [a, b]) => {
  const step = (letter === "x" ? right : up) * (b - a) / 5;
  return step ? [a + step, b + step] : null;
});
const actions = {
  "+": (plot) => zoom(plot, 2 / 3), "=": (plot) => zoom(plot, 2 / 3),
  "-": (plot) => zoom(plot, 3 / 2), "0": draw,
  ArrowLeft: (plot) => move(plot, -1, 0), ArrowRight: (plot) => move(plot, 1, 0),
  ArrowUp: (plot) => move(plot, 0, 1), ArrowDown: (plot) => move(plot, 0, -1),
};
for (const plot of all(".plot")) {
  plot.addEventListener("keydown", (event) => {
    const act = actions[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(plot);
  });
}
const buttons = { in: "+", out: "-", all: "0" };
for (const button of all("[data-zoom]")) {
  button.addEventListener("click", () =>
    actions[buttons[button.dataset.zoom]](find(button.getAttribute("aria-controls"))));
}
dark.addEventListener("change", drawAgain);
addEventListener("beforeprint", () => {
  printing = true;
  document.documentElement.classList.add("printing");
  drawSeen(document);
  drawAgain();
});
addEventListener("afterprint", () => {
  printing = false;
  document.documentElement.classList.remove("printing");
  drawAgain();
});

/* The explorer: a page of its own in a frame, made when it is first seen. The address of this page
   holds its view. */
let frame = null, explored = "";
const addressOf = (view) => `explorer${view && "?"}${view}`;
const explore = (view) => {
  explored = view;
  frame?.remove();
  frame = make("iframe");
  frame.title = find("explorer-place").dataset.title;
  frame.name = `view:${view}`; /* a frame reads its name once, as it is put on the page */
  frame.sandbox = "allow-scripts";
  frame.srcdoc = read("explorer-page");
  find("explorer-place").append(frame);
};
addEventListener("message", (event) => {
  if (!frame || event.source !== frame.contentWindow || typeof event.data?.view !== "string") return;
  explored = event.data.view;
  if (!panelOf(find("tab-explorer")).hidden) remember(addressOf(explored));
});

/* Tabs: arrows, Home and End move between them. */
const tabs = all("[role=tab]");
const panelOf = (tab) => find(tab.getAttribute("aria-controls"));
const select = (tab) => {
  for (const other of tabs) {
    other.setAttribute("aria-selected", other === tab);
    other.tabIndex = other === tab ? 0 : -1;
    panelOf(other).hidden = other !== tab;
  }
  drawSeen(panelOf(tab));
  if (panelOf(tab).id === "explorer") {
    if (!frame) explore(explored);
    scrollTo(0, find("explorer-place").offsetTop - find("tabs").offsetHeight);
  }
  tab.scrollIntoView({ block: "nearest", inline: "center" });
};
const remember = (name) => history.replaceState(null, "", `#${name}`);
tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => {
    select(tab);
    remember(tab === find("tab-explorer") ? addressOf(explored) : tab.getAttribute("aria-controls"));
  });
  tab.addEventListener("keydown", (event) => {
    const last = tabs.length - 1;
    const to = { ArrowLeft: place ? place - 1 : last, ArrowRight: place < last ? place + 1 : 0,
      Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tabs[to].click();
    tabs[to].focus();
  });
});

/* The table: searched by words, sorted by a column, 25 rows at first. */
const table = read("table");
const fields = ["name", "class", "languages", "score", "peak", "n", "selected", "p"];
const neurons = table.rows.map((row) => {
  const neuron = Object.fromEntries(row.map((value, place) => [fields[place], value]));
  neuron.place = neuron.name.match(/\d+/g).map(Number);
  neuron.carded = neuron.name in table.words;
  const named = neuron.languages.flatMap((k) => [table.languages[k].code, table.languages[k].name]);
  neuron.words = [neuron.name, neuron.class, ...named, ...(table.words[neuron.name] ?? [])]
    .flatMap((text) => [text, ...text.split(/[\s()]+/)]).map(fold);
  return neuron;
});
function fold(text) { return text.normalize("NFKC").toLowerCase(); }
const state = { sort: "score", down: false, shown: 25, rows: [], open: null };

const matches = (neuron, terms, language, kind, carded) =>
  terms.every((term) => neuron.words.some((word) =>
    word.startsWith(term) || (/[^\x00-\x7f]/.test(term) && word.includes(term)))) &&
  (language === "" || neuron.languages.includes(Number(language))) &&
  (kind === "" || neuron.class === kind) && (!carded || neuron.carded);
const keys = {
  name: (a, b) => a.place.reduce((found, place, k) => found || place - b.place[k], 0),
  class: (a, b) => a.class.localeCompare(b.class),
  languages: (a, b) => a.languages.length - b.languages.length ||
    String(a.languages).localeCompare(String(b.languages), "en", { numeric: true }),
  score: (a, b) => (a.score ?? Number.MAX_VALUE) - (b.score ?? Number.MAX_VALUE),
  peak: (a, b) => a.peak - b.peak,
  n: (a, b) => a.n - b.n,
};
const chips = (neuron, shown) => neuron.languages.map((k) => {
  const chip = make("span", "language");
  const swatch = make("i");
  swatch.style.background = table.languages[k].colour;
  chip.append(swatch, table.languages[k][shown]);
  return chip;
});
const rowOf = (neuron) => {
  const row = make("tr");
  const name = make("th", "word");
  name.scope = "row";
  const button = make("button", "open", neuron.name);
  button.type = "button";
  button.dataset.neuron = neuron.name;
  button.setAttribute("aria-haspopup", "dialog");
  name.append(button);
  if (neuron.carded) {
    name.append(" ", make("span", "sign", "with texts"));
  }
  const languages = make("td", "word");
  languages.append(...chips(neuron, "code"));
  row.append(name, make("td", "word", neuron.class), languages,
    make("td", "", neuron.score?.toFixed(4) ?? "–"), make("td", "", neuron.peak.toFixed(3)),
    make("td", "", neuron.n));
  row.addEventListener("click", () => openCard(neuron));
  return row;
};
const show = () => {
  const terms = fold(find("query").value).split(/\s+/).filter(Boolean);
  const carded = find("carded")?.checked ?? false;
  const chosen = [find("language").value, find("class").value];
  state.rows = neurons.filter((neuron) => matches(neuron, terms, ...chosen, carded));
  const compare = keys[state.sort];
  state.rows.sort((a, b) => (state.down ? -1 : 1) * compare(a, b));
  find("neuron-table").tBodies[0].replaceChildren(...state.rows.slice(0, state.shown).map(rowOf));
  for (const head of all("th[data-sort]")) {
    if (head.dataset.sort !== state.sort) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
  }
  const rest = state.rows.length - state.shown;
  find("more").hidden = rest <= 0;
  find("more").textContent = `Show ${Math.min(rest, 100)} more of ${rest}`;
  const shown = Math.min(state.shown, state.rows.length);
  find("status").textContent = `${state.rows.length} of ${neurons.length} ${table.unit}s` +
    (rest > 0 ? `, the first ${shown} shown` : "");
};
for (const head of all("th[data-sort]")) {
  head.firstElementChild.addEventListener("click", () => {
    state.down = state.sort === head.dataset.sort && !state.down;
    state.sort = head.dataset.sort;
    show();
  });
}
for (const id of ["query", "language", "class", "carded"]) {
  find(id)?.addEventListener("input", () => { state.shown = 25; show(); });
}
find("more").addEventListener("click", () => { state.shown += 100; show(); });
table.languages.forEach((language, k) => find("language").append(new Option(language.name, k)));
for (const kind of new Set(neurons.map((neuron) => neuron.class))) {
  find("class").append(new Option(kind, kind));
}

/* Cards: one dialog; the probabilities of every neuron, and what else is known of some. */
const dialog = find("card");
const bars = (neuron) => {
  const body = make("table", "bars");
  const above = new Set(neuron.languages);
  table.languages.forEach((language, k) => {
    const row = body.insertRow();
    const name = make("th", "word", language.name);
    const p = parseInt(neuron.p.slice(2 * k, 2 * k + 2), 36) / 1000;
    name.scope = "row";
    const track = make("div", "track");
    const bar = make("i");
    bar.style.background = language.colour;
    bar.style.width = `${100 * p}%`;
    bar.style.opacity = above.has(k) ? 1 : .45;
    const line = make("b");
    line.style.left = `${100 * table.tau}%`;
    track.append(bar, line);
    const cell = make("td");
    cell.append(track);
    row.append(name, cell, make("td", above.has(k) ? "above" : "", p.toFixed(3)));
    if (above.has(k)) row.lastChild.title = name.title = "above tau";
    if (above.has(k)) name.classList.add("above");
  });
  return body;
};
const openCard = (neuron) => {
  state.open = neuron;
  find("card-name").textContent = neuron.name;
  const told = find("card-told");
  told.replaceChildren(`${neuron.class}${neuron.n ? ": " : ""}`, ...chips(neuron, "name"),
    make("br"), `${neuron.selected ? "selected" : "not selected"}, ` +
    (neuron.score === null ? "no score" : `score ${neuron.score.toFixed(4)}`));
  const extra = find(`card-${neuron.name}`);
  const head = make("h3", "", "activation probability by language");
  const note = make("p", "small", `Dashed: tau ${table.tau.toFixed(4)}; bold: above it.` +
    (extra ? "" : " Texts and tokens were not gathered for this neuron."));
  find("card-body").replaceChildren(head, bars(neuron), note);
  if (extra) find("card-body").append(extra.content.cloneNode(true));
  const place = state.rows.indexOf(neuron);
  find("previous").disabled = place <= 0;
  find("next").disabled = place < 0 || place === state.rows.length - 1;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  remember(neuron.name);
};
const step = (by) => openCard(state.rows[state.rows.indexOf(state.open) + by]);
find("previous").addEventListener("click", () => step(-1));
find("next").addEventListener("click", () => step(1));
for (const one of all("dialog")) {
  one.querySelector("[data-close]").addEventListener("click", () => one.close());
  one.addEventListener("click", (event) => { if (event.target === one) one.close(); });
}
for (const button of all("[data-card]")) {
  button.addEventListener("click", () => {
    state.from = button;
    openCard(neurons.find((neuron) => neuron.name === button.dataset.card));
  });
}
find("card-explore")?.addEventListener("click", () => {
  state.from = find("tab-explorer");
  explore(`neuron=${state.open.name}`);
  dialog.close();
  select(state.from);
});
dialog.addEventListener("close", () => {
  if (state.from) {
    state.from.focus();
    remember(state.from === find("tab-explorer") ? addressOf(explored) : "findings");
    state.from = null;
    return;
  }
  remember("neurons");
  (find("neuron-table").querySelector(`[data-neuron="${state.open.name}"]`) ?? find("query")).focus();
});

/* Stories: a cell or a point of a figure in words, with the way to its neurons. What a trace opens
   is a list for each of its axes, or one value for all of it. */
const story = find("story");
function opensOf(point) {
  const opens = point?.data.meta?.opens;
  if (!opens) return null;
  const [row, column] = [point.pointNumber].flat();
  const place = { y: row, x: column ?? row };
  const at = ([key, value]) => [key, Array.isArray(value.values) ? value.values[place[value.axis]] : value];
  return Object.fromEntries(Object.entries(opens).map(at));
}
function openStory(plot, points) {
  if (!points.length) return;
  const opened = opensOf(points[0]);
  if (points.length > 1) delete opened.class; /* all lines at one layer */
  if (opened.name) {
    const neuron = neurons.find((one) => one.name === opened.name);
    if (neuron) openCard(neuron);
    return;
  }
  const place = table.languages.findIndex((language) => language.code === opened.language);
  const kind = neurons[0]?.name.match(/^L\d+([A-Z])/)[1] ?? "N";
  const where = opened.layer === undefined ? "" : `L${opened.layer}${kind}`;
  const words = [opened.class, place < 0 ? "" : table.languages[place].name,
    where && `layer ${opened.layer}`].filter(Boolean).join(", ");
  const told = all(".hoverlayer .nums .line", plot).map((line) => line.textContent);
  const [head, ...lines] = told.length ? told
    : [words, ...all(".hoverlayer .legendtext", plot).map((line) => line.textContent)];
  find("story-head").textContent = head;
  find("story-body").replaceChildren(...lines.map((line) => make("p", "", line)));
  find("story-neurons").textContent = `Show the ${table.unit}s: ${words}`;
  find("story-neurons").onclick = () => {
    story.close();
    find("query").value = where;
    find("language").value = place < 0 ? "" : place;
    find("class").value = opened.class ?? "";
    if (find("class").selectedIndex < 0) find("class").value = "";
    if (find("carded")) find("carded").checked = false;
    state.shown = 25;
    show();
    find("tab-neurons").click();
    find("query").focus();
  };
  story.showModal();
}

/* Begin where the address says: at a tab, or at a neuron. */
show();
const [asked, view = ""] = location.hash.slice(1).split("?");
explored = view;
const named = neurons.find((neuron) => neuron.name === asked);
select(tabs.find((tab) => tab.getAttribute("aria-controls") === (named ? "neurons" : asked)) ?? tabs[0]);
if (named) openCard(named);
})();

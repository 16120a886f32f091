"use strict";
(() => {
const byId = id => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const blob = name => {
  const written = byId("blob-" + name).textContent;
  byId("blob-" + name).remove();
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(written).buffer;
  const text = atob(written), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
};
const K = data.languages.length, layers = data.layers, width = data.width, n = layers * width;
const classes = data.classes.map(pair => pair[0]), bars = data.bars;
const codes = new Uint8Array(blob("codes"));             // [neuron, language]: bars that p exceeds
const best = new Int32Array(blob("best"));               // the selected neurons, best score first
const recorded = new Int32Array(blob("recorded")), ends = new Float32Array(blob("ends"));
const activations = new Int8Array(blob("activations"));  // [recorded, span]
const texts = data.items.flatMap((item, i) => item.texts.map(text => ({...text, item: i})));
let spans = 0;
for (const text of texts) { text.from = spans; spans += text.spans.length; }
const place = new Int32Array(n).fill(-1);                // of a neuron among the recorded ones
recorded.forEach((neuron, i) => { place[neuron] = i; });
const chosen = new Uint8Array(n);
best.forEach(neuron => { chosen[neuron] = 1; });
const everyone = new Int32Array(n);
everyone.set(best);
for (let i = 0, to = best.length; i < n; i++) if (!chosen[i]) everyone[to++] = i;
const heard = everyone.filter(neuron => place[neuron] >= 0);
const middle = [0, ...bars].map((bar, code) => code ? (bar + (bars[code] ?? 1)) / 2 : 0);   // p of a code
const exceed = new Float64Array(bars.length);            // share of all p above each bar
let highest = 0;                                         // p of all
{
  const held = new Float64Array(256);
  for (let i = 0; i < codes.length; i++) held[codes[i]]++;
  highest = middle[held.findLastIndex(count => count > 0)];
  for (let bar = bars.length - 1, sum = 0; bar >= 0; bar--) exceed[bar] = (sum += held[bar + 1]) / codes.length;
}

const nothing = {tau: data.own, all: data.all, layer: -1, class: -1, language: -1, at: -1, neuron: -1, item: 0};
const state = {...nothing};
const kind = new Uint8Array(n);
let found = new Int32Array(0), active = 0, values = new Float32Array(spans), largest = 0;
let pool = best, counts = [], profile = [], shared = [];

const within = data.experts ? width / data.experts : width;   // neurons of an expert, or of the layer
function nameOf(neuron) {
  const at = neuron % width;
  return `L${Math.floor(neuron / width)}${data.experts ? "E" + Math.floor(at / within) : ""}N${at % within}`;
}
const number = value => String(value).replace(/\B(?=(\d{3})+$)/g, ",");   // toLocaleString takes 100 times as long
const percent = share => `${(100 * share).toFixed(share < .1 ? 1 : 0)} %`;
const several = (count, word = data.unit) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
const signed = value => (value < 0 ? "\u2212" : "+") + Math.abs(value).toPrecision(2);
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16)).join(", ");
const inks = data.languages.map(language => rgb(language[2])), ABOVE = "213, 94, 0", BELOW = "42, 112, 174";
function element(tag, options = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") made.textContent = value;
    else if (name === "style") for (const [key, one] of Object.entries(value)) made.style.setProperty(key, one);
    else if (name === "click") made.addEventListener("click", value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/* the state in the address, in a frame of a report in that of the report */
const framed = parent !== window && window.name.startsWith("view:");
function read() {
  const given = new URLSearchParams(framed ? window.name.slice(5) : location.hash.slice(1));
  const whole = (name, most) => /^\d{1,9}$/.test(given.get(name) ?? "") && +given.get(name) < most ? +given.get(name) : -1;
  Object.assign(state, nothing);
  const tau = bars.indexOf(parseFloat(given.get("tau")));
  if (tau >= 0) state.tau = tau;
  if (given.has("all")) state.all = given.get("all") === "1";
  state.layer = whole("layer", layers);
  state.class = Math.max(classes.indexOf(given.get("class")), 0) || -1;
  state.language = data.languages.findIndex(one => one[0] === given.get("language"));
  state.at = whole("token", spans);
  const name = /^L(\d{1,6})(?:E(\d{1,6}))?N(\d{1,8})$/.exec(given.get("neuron") ?? "");
  if (name && (name[2] !== undefined) === data.experts > 0 && +name[1] < layers && +(name[2] ?? 0) < (data.experts || 1) && +name[3] < within)
    state.neuron = +name[1] * width + +(name[2] ?? 0) * within + +name[3];
  state.item = Math.max(whole("item", data.items.length + 1) - 1, 0);
}
function write() {
  const held = new URLSearchParams();
  if (state.tau !== data.own) held.set("tau", bars[state.tau]);
  if (state.all !== data.all) held.set("all", +state.all);
  if (state.layer >= 0) held.set("layer", state.layer);
  if (state.class >= 0) held.set("class", classes[state.class]);
  if (state.language >= 0) held.set("language", data.languages[state.language][0]);
  if (state.at >= 0) held.set("token", state.at);
  if (state.neuron >= 0) held.set("neuron", nameOf(state.neuron));
  if (state.item > 0) held.set("item", state.item + 1);
  if (framed) parent.postMessage({view: String(held)}, "*");
  else try { history.replaceState(null, "", "#" + held); } catch { /* a frame of a notebook has no address */ }
}

/* what follows from it */
function classify() {
  const bar = state.tau;
  for (let i = 0, at = 0; i < n; i++) {
    let above = 0;
    for (let k = 0; k < K; k++) above += (bar - codes[at++]) >>> 31;   // 1 where p exceeds it
    kind[i] = above === 0 ? 0 : above === 1 ? 1 : above === K ? 3 : 2;
  }
}
function tally() {   // which neurons there are, before layer, class and language are chosen; how many of each
  const {tau, at} = state;
  pool = at < 0 ? (state.all ? everyone : best)
    : heard.filter(neuron => (state.all || chosen[neuron]) && activations[place[neuron] * spans + at] > 0);
  counts = classes.map(() => new Int32Array(layers * (K + 1)));   // the last of a layer: all of the class
  for (let i = 0; i < pool.length; i++) {
    const neuron = pool[i], own = kind[neuron];
    if (own === 0) continue;
    const row = counts[own], to = Math.floor(neuron / width) * (K + 1), from = neuron * K;
    row[to + K]++;
    if (own < 3) for (let k = 0; k < K; k++) row[to + k] += (tau - codes[from + k]) >>> 31;
  }
}
function filter() {
  const kept = new Int32Array(pool.length);
  const {tau, layer, class: wanted, language, at} = state;
  const from = layer < 0 ? 0 : layer * width, to = layer < 0 ? n : from + width;
  let count = 0;
  for (let i = 0; i < pool.length; i++) {
    const neuron = pool[i], own = kind[neuron];
    if (own === 0 || neuron < from || neuron >= to || (wanted >= 0 && own !== wanted)) continue;
    if (language >= 0 && (own === 3 || codes[neuron * K + language] <= tau)) continue;
    kept[count++] = neuron;
  }
  found = kept.subarray(0, count);
  if (at >= 0) {
    const strength = neuron => activations[place[neuron] * spans + at] * ends[place[neuron]];
    found = found.sort((a, b) => strength(b) - strength(a));
  }
  active = Math.max(found.indexOf(state.neuron), 0);
  const sum = (here, column, own) => own.reduce((total, c) => total + counts[c][here * (K + 1) + column], 0);
  const every = [...Array(layers).keys()];
  profile = classes.map((_, c) => every.map(here => language < 0 || !c ? sum(here, K, [c]) : c < 3 ? sum(here, language, [c]) : 0));
  shared = data.languages.map((_, k) => every.map(here => sum(here, k, wanted < 0 ? [1, 2] : [wanted])));
}
function colour() {
  values.fill(0);
  if (state.neuron >= 0) {
    const row = place[state.neuron];
    if (row >= 0) for (let s = 0; s < spans; s++) {
      const byte = activations[row * spans + s];
      values[s] = byte === -128 ? NaN : byte / 127 * ends[row];
    }
    largest = row >= 0 ? ends[row] : 0;
    return;
  }
  let size = 0;
  for (const neuron of found) {
    const row = place[neuron];
    if (row < 0) continue;
    size++;
    for (let s = 0, from = row * spans; s < spans; s++) values[s] += activations[from + s] > 0;
  }
  largest = 0;
  for (let s = 0; s < spans; s++) largest = Math.max(largest, values[s] = size ? values[s] / size : 0);
  colour.size = size;
}

/* layers */
/* What is written on cells and characters is kept on them too: to write it twice, or to ask the page
   for it, costs more than all counting. */
const cells = [];   // [row][column]: row 0 is the heads, column 0 the layers
function buildMap() {
  const map = byId("map"), tall = Math.max(9, Math.min(19, Math.floor(420 / layers)));
  map.style.setProperty("--row", tall + "px");
  map.style.minWidth = `${220 + 18 * K}px`;
  const head = element("tr", {role: "row"});
  const first = element("td", {role: "gridcell", tabindex: "0", text: "", "aria-label": "all layers"});
  head.append(first);
  cells.push([first]);
  const cell = (row, column, made) => { made.dataset.row = row; made.dataset.column = column; cells[row][column] = made; return made; };
  cell(0, 0, first);
  for (let c = 1; c < 4; c++) {
    const mark = element("span", {class: "mark " + classes[c], style: {"--tint": data.classes[c][1]}});
    head.append(cell(0, c, element("th", {scope: "col", role: "columnheader", tabindex: "-1", class: "class"},
      [element("span", {}, [mark, classes[c]])])));
  }
  data.languages.forEach(([code, full], k) => head.append(cell(0, k + 4, element("th",
    {scope: "col", role: "columnheader", tabindex: "-1", class: "tongue", title: full, "aria-label": full},
    [element("span", {class: code.length > 2 || K > 10 ? "many" : "", text: code})]))));
  map.append(element("thead", {role: "rowgroup"}, [head]));
  const body = element("tbody", {role: "rowgroup"});
  for (let row = 1; row <= layers; row++) {
    const layer = layers - row, line = element("tr", {role: "row"});
    cells.push([]);
    const shown = tall > 11 || layer % 5 === 0 ? layer : "";
    line.append(cell(row, 0, element("th", {scope: "row", role: "rowheader", tabindex: "-1", text: shown, "aria-label": `layer ${layer}`})));
    for (let c = 1; c < 4; c++) line.append(cell(row, c, element("td",
      {role: "gridcell", tabindex: "-1", class: "class", style: {"background-image": `linear-gradient(rgba(${rgb(data.classes[c][1])}, .55) 0 0)`}}, [element("span")])));
    data.languages.forEach((_, k) => line.append(cell(row, k + 4, element("td",
      {role: "gridcell", tabindex: "-1", class: "language"}))));
    body.append(line);
  }
  map.append(body);
  map.addEventListener("click", event => {
    const at = event.target.closest("[data-row]");
    if (at) { rove(at); press(+at.dataset.row, +at.dataset.column); }
  });
  map.addEventListener("keydown", event => {
    const at = event.target.closest("[data-row]");
    if (!at) return;
    let row = +at.dataset.row, column = +at.dataset.column;
    if (event.key === "Enter" || event.key === " ") press(row, column);
    else if (event.key === "ArrowUp") row--;
    else if (event.key === "ArrowDown") row++;
    else if (event.key === "ArrowLeft") column--;
    else if (event.key === "ArrowRight") column++;
    else if (event.key === "Home") column = 0;
    else if (event.key === "End") column = K + 3;
    else return;
    event.preventDefault();
    const next = cells[row]?.[column];
    if (next) { rove(next); next.focus(); }
  });
}
function rove(to) {
  byId("map").querySelector('[tabindex="0"]').tabIndex = -1;
  to.tabIndex = 0;
}
function press(row, column) {
  const layer = row ? layers - row : -1, wanted = column > 0 && column < 4 ? column : -1, language = column > 3 ? column - 4 : -1;
  if (!row && !column) return choose({layer: -1, class: -1, language: -1});
  const same = (!row || state.layer === layer) && (wanted < 0 || state.class === wanted) && (language < 0 || state.language === language);
  const change = {};
  if (row) change.layer = same ? -1 : layer;
  if (wanted > 0) change.class = same ? -1 : wanted;
  if (language >= 0) change.language = same ? -1 : language;
  choose(change);
}
function drawMap() {
  const most = Math.max(1, ...profile.slice(1).map(row => Math.max(...row)));
  const top = Math.max(1, ...shared.map(row => Math.max(...row)));
  for (let row = 1; row <= layers; row++) {
    const layer = layers - row;
    for (let c = 1; c < 4; c++) {
      const count = profile[c][layer], cell = cells[row][c];
      const share = count ? Math.max(2, 62 * count / most).toFixed(1) : "0", told = count ? number(count) : "";
      if (cell.share === share && cell.shown === told) continue;
      cell.share = share;
      cell.shown = told;
      cell.style.backgroundSize = share + "% 100%";
      cell.firstChild.style.marginLeft = `calc(${share}% + 3px)`;
      cell.firstChild.textContent = told;
    }
    for (let k = 0; k < K; k++) {
      const count = shared[k][layer], cell = cells[row][k + 4], share = count ? .06 + .94 * Math.sqrt(count / top) : 0;
      if (cell.share === share) continue;
      cell.share = share;
      cell.style.backgroundColor = `rgba(${inks[k]}, ${share.toFixed(3)})`;
    }
  }
  cells.forEach((row, r) => row.forEach((cell, c) => {
    const layer = r > 0 && state.layer === layers - r, column = c > 0 && (c < 4 ? state.class === c : state.language === c - 4);
    const on = r === 0 ? column : c === 0 ? layer : layer && column;
    if (cell.on === on) return;
    cell.on = on;
    cell.classList.toggle("on", on);
    if (r + c > 0) cell.ariaSelected = on;
  }));
}

/* neurons: only the rows in view are there */
const ROW = 28, MOST = 600000;   // browsers lay out about 17 million pixels
let shown = [], scrolled = 0, room = byId("list").clientHeight;   // kept here: to ask the page makes it lay itself out
function drawList() {
  const list = byId("list"), listed = Math.min(found.length, MOST);
  byId("tall").style.height = listed * ROW + "px";
  const first = Math.max(0, Math.floor(scrolled / ROW) - 4), last = Math.min(listed, first + Math.ceil(room / ROW) + 9);
  const shows = [found, first, last, state.tau];
  if (listed && shows.every((value, i) => value === shown[i])) for (let i = first; i < last; i++) mark(byId("tall").children[i - first], i);
  else fill(listed, first, last);
  shown = shows;
  if (listed) list.setAttribute("aria-activedescendant", "row-" + active);
  else list.removeAttribute("aria-activedescendant");
}
function mark(row, i) {
  row.classList.toggle("active", i === active);
  row.ariaSelected = found[i] === state.neuron;
}
function fill(listed, first, last) {
  const rows = [];
  for (let i = first; i < last; i++) {
    rows.push(rowOf(i));
    mark(rows.at(-1), i);
  }
  if (!listed) rows.push(element("p", {class: "soft empty", text:
    state.at >= 0 ? `No recorded ${data.unit} that passes the filters is active here.` : `No ${data.unit} passes the filters.`}));
  byId("tall").replaceChildren(...rows);
}
function rowOf(i) {
  const neuron = found[i], own = kind[neuron], over = languagesOf(neuron);
  const names = own === 3 ? "all" : over.slice(0, 4).map(k => data.languages[k][0]).join(" ") + (over.length > 4 ? ` +${over.length - 4}` : "");
  const strip = data.languages.map((_, k) => `rgba(${inks[k]}, ${shade(k, neuron)}) ${9 * k}px ${9 * k + 8}px, transparent 0 ${9 * k + 9}px`);
  const row = element("div", {role: "option", id: "row-" + i, class: "row", style: {top: i * ROW + "px"},
    "aria-setsize": found.length, "aria-posinset": i + 1,
    "aria-label": `${nameOf(neuron)}, ${classes[own]}, ${over.map(k => data.languages[k][1]).join(", ")}`,
    click: () => { active = i; choose({neuron: neuron === state.neuron ? -1 : neuron}); }}, [
    element("b", {text: nameOf(neuron)}),
    element("span", {}, [element("span", {class: "mark " + classes[own], style: {"--tint": data.classes[own][1]}}), classes[own]]),
    element("span", {class: "soft", text: names}),
    element("span", {class: "strip", "aria-hidden": "true", style: {width: 9 * K - 1 + "px", "background-image": `linear-gradient(to right, ${strip})`}}),
  ]);
  return row;
}
const languagesOf = neuron => data.languages.map((_, k) => k).filter(k => codes[neuron * K + k] > state.tau);
const probability = (k, neuron) => middle[codes[neuron * K + k]];
function shade(k, neuron) {   // faint up to tau, strong above it
  const p = probability(k, neuron), tau = bars[state.tau];
  return codes[neuron * K + k] > state.tau ? (.45 + .55 * (p - tau) / Math.max(highest - tau, .001)).toFixed(2) : tau ? (.2 * p / tau).toFixed(2) : 0;
}
function go(to) {
  active = Math.max(0, Math.min(to, Math.min(found.length, MOST) - 1));
  const top = active * ROW;
  roll(top < scrolled ? top : Math.max(scrolled, top + ROW - room));
  drawList();
}
function roll(top) {
  if (top === scrolled) return;
  byId("tall").style.height = Math.min(found.length, MOST) * ROW + "px";
  scrolled = byId("list").scrollTop = top;
}

/* one neuron, or the mean of those that are listed */
function drawFacts() {
  const neuron = state.neuron, one = neuron >= 0, tau = bars[state.tau];
  const p = new Array(K).fill(0), listed = one ? [neuron] : found;
  for (let i = 0; i < listed.length; i++) for (let k = 0, from = listed[i] * K; k < K; k++) p[k] += middle[codes[from + k]];
  for (let k = 0; k < K; k++) p[k] /= Math.max(1, listed.length);
  const over = p.map((value, k) => one ? codes[neuron * K + k] > state.tau : value > tau);
  const top = [.05, .1, .2, .5, 1].find(end => end >= Math.max(...p, Math.min(1.15 * tau, 1)));
  const columns = data.languages.map(([, full], k) => element("div", {class: over[k] ? "over" : "", title: `${full}: p about ${p[k].toFixed(3)}`},
    [element("i", {style: {"background-color": `rgb(${inks[k]})`, height: 100 * p[k] / top + "%"}})]));
  const words = data.languages.filter((_, k) => over[k]).map(language => language[1]).join(", ");
  const own = {unclassified: "above tau in no language", agnostic: "above tau in every language"}[classes[kind[neuron]]] ?? words;
  byId("facts").replaceChildren(
    element("p", {}, one ? [element("b", {text: nameOf(neuron)}), ` ${classes[kind[neuron]]}: ${own}`]
      : [element("button", {type: "button", class: "link", text: several(found.length), click: () => { byId("list").focus(); byId("neurons").scrollIntoView(); }}),
        " of the list; choose one to see what it does"]),
    element("div", {class: "columns", role: "img", "aria-label": data.languages.map((language, k) => `${language[1]} ${p[k].toFixed(3)}`).join(", ")},
      [...columns, element("hr", {style: {bottom: 100 * tau / top + "%"}})]),
    element("div", {class: "names soft", "aria-hidden": "true"}, data.languages.map(([code], k) => element("span", {class: over[k] ? "over" : "", text: code}))),
    element("p", {class: "soft", text: `${one ? "Activation probability" : "Mean activation probability"} by language, 0 to ${top}; dashed: tau.`}));
}

/* texts */
let shownItem = -1, marks = [];
function buildTexts() {
  const item = data.items[state.item];
  shownItem = state.item;
  marks = [];
  byId("gloss").textContent = item.gloss;
  byId("rows").replaceChildren(...texts.filter(text => text.item === state.item).map(text => {
    const tokens = element("div", {class: "tokens", dir: "auto", role: "group", "aria-label": text.label});
    if (text.language) tokens.lang = text.language;
    text.spans.forEach((shown, i) => {
      const mark = element("span", {role: "button", tabindex: i ? "-1" : "0", text: shown});
      mark.dataset.span = text.from + i;
      if (shown.includes("\n")) mark.className = "break";
      marks.push(mark);
      tokens.append(mark);
    });
    const parts = [element("div", {class: "name"}, [element("bdi", {text: text.label})]), tokens];
    if (text.gloss) parts.push(element("div", {class: "own soft", lang: "en", dir: "auto", text: text.gloss}));
    return element("div", {class: "text"}, parts);
  }));
}
function drawTexts() {
  if (!spans) return;
  if (shownItem !== state.item) buildTexts();
  const one = state.neuron >= 0, unknown = one && place[state.neuron] < 0;
  for (const mark of marks) {
    const s = +mark.dataset.span, value = values[s], share = largest && value ? Math.min(1, Math.abs(value) / largest) : 0;
    const ink = value > 0 ? ABOVE : BELOW, thick = one && share ? Math.max(1, Math.round(3 * share)) : Math.round(3 * share);
    const ground = share < .005 ? "" : `rgba(${ink}, ${(.55 * share).toFixed(3)})`;
    const line = thick && (value > 0 || share >= .02) ? `${thick}px ${value > 0 ? "solid" : "dotted"} rgba(${ink}, .9)` : "";
    if (mark.ground !== ground) mark.style.background = mark.ground = ground;
    if (mark.line !== line) mark.style.borderBottom = mark.line = line;
    if (mark.at === (s === state.at)) continue;
    mark.ariaPressed = mark.at = s === state.at;
    mark.classList.toggle("at", mark.at);
  }
  const key = byId("key"), most = one ? signed(largest) : percent(largest);
  if (unknown) key.replaceChildren(element("span", {class: "soft", text:
    `What ${nameOf(state.neuron)} does on the texts was not recorded: explore(..., record="${nameOf(state.neuron)}") does that.`}));
  else {
    const low = one && values.some(value => value < 0);
    key.replaceChildren(
      element("span", {class: "soft", text: low ? signed(-largest) : "0"}),
      element("div", {style: {background: `linear-gradient(to right, ${low ? `rgba(${BELOW}, .55), ` : ""}transparent, rgba(${ABOVE}, .55))`}}),
      element("span", {class: "soft", text: most}),
      element("span", {class: "soft", text: one ? `activation of ${nameOf(state.neuron)}; underlined where it is active${low ? ", dotted where below zero" : ""}`
        : `share of ${several(colour.size, `recorded ${data.unit}`)} of the list that ${colour.size === 1 ? "is" : "are"} active; underlined where many are`}));
  }
  const turn = byId("turn");
  if (data.items.length < 2) return;
  if (!turn.children.length) turn.append(...data.items.map((item, i) => element("button",
    {type: "button", text: i + 1, title: item.name, "aria-label": `text ${i + 1}: ${item.name}`, click: () => choose({item: i})})));
  const peak = new Float64Array(data.items.length);
  for (const text of texts) for (let s = text.from; s < text.from + text.spans.length; s++) if (values[s] > peak[text.item]) peak[text.item] = values[s];
  [...turn.children].forEach((button, i) => {
    button.setAttribute("aria-current", i === state.item);
    button.style.borderBottomColor = `rgba(${ABOVE}, ${largest ? (peak[i] / largest).toFixed(2) : 0})`;
  });
}

/* the address, and what tooltips and screen readers say: written when the picture is drawn, as it
   takes longer than that, and once for many steps of the slider */
let waiting = 0, unwritten = false;
function describe() {
  if (unwritten) write();
  unwritten = false;
  for (let row = 1; row <= layers; row++) for (let c = 1; c < K + 4; c++) {
    const layer = layers - row, count = (c < 4 ? profile[c] : shared[c - 4])[layer], cell = cells[row][c];
    if (cell.count === count) continue;
    cell.count = count;
    cell.ariaLabel = cell.title = `layer ${layer}, ${c < 4 ? classes[c] : data.languages[c - 4][1]}: ${several(count)}`;
  }
  if (pointed?.isConnected) tell(pointed);
}
let pointed = null;   // the characters that the mouse is on, or the focus
function tell(mark) {
  const one = state.neuron >= 0, value = values[mark.dataset.span];
  pointed = mark;
  mark.title = one && place[state.neuron] < 0 ? "not recorded" : Number.isNaN(value) ? "no token holds this"
    : one ? `${signed(value)}, ${value > 0 ? "active" : "not active"}` : `${percent(value)} of ${several(colour.size)} active`;
  mark.ariaLabel = `${mark.textContent}: ${mark.title}`;
}

/* the bar, and the chips */
function drawBar() {
  const tau = byId("tau"), value = String(Math.round(1e4 * bars[state.tau]) / 1e4);
  tau.value = state.tau;
  tau.setAttribute("aria-valuetext", value);
  byId("bar-value").textContent = value;
  byId("bar-share").textContent = `${percent(exceed[state.tau])} of all p exceed it`;
  byId("selected").setAttribute("aria-pressed", !state.all);
  byId("all").setAttribute("aria-pressed", state.all);
  const chips = [];
  const chip = (told, change) => chips.push(element("button", {class: "chip", type: "button", "aria-label": `remove ${told}`, text: told,
    click: () => { choose(change); (byId("chips").querySelector("button") ?? byId("list")).focus(); }}));
  if (state.tau !== data.own) chip(`tau ${value}`, {tau: data.own});
  if (state.layer >= 0) chip(`layer ${state.layer}`, {layer: -1});
  if (state.class >= 0) chip(classes[state.class], {class: -1});
  if (state.language >= 0) chip(data.languages[state.language][1], {language: -1});
  if (state.at >= 0) chip(`active on “${tokenAt(state.at)}”`, {at: -1});
  if (state.neuron >= 0) chip(nameOf(state.neuron), {neuron: -1});
  byId("chips").replaceChildren(...chips);
  const sum = state.all ? n : best.length;
  byId("status").textContent = `${number(found.length)} of ${number(sum)}${state.at >= 0 ? ", strongest first" : ""}`;
}
function tokenAt(at) {
  const text = texts.find(one => at < one.from + one.spans.length);
  return text.spans[at - text.from].trim().slice(0, 24) || "␣";
}

function choose(change) {
  const before = {...state};
  Object.assign(state, change);
  if (change.at >= 0) state.item = texts.find(text => state.at < text.from + text.spans.length).item;
  unwritten = true;
  draw(before);
}
function draw(before) {
  const differs = (...names) => !before || names.some(name => before[name] !== state[name]);
  if (differs("tau")) classify();
  const filtered = differs("tau", "all", "layer", "class", "language", "at");
  if (differs("tau", "all", "at")) tally();
  if (filtered) {
    filter();
    roll(state.neuron >= 0 ? Math.min(Math.max(0, active - 4) * ROW, Math.max(0, found.length * ROW - room)) : 0);
    drawMap();
  }
  if (filtered || differs("neuron")) colour();
  drawBar();
  drawList();
  drawFacts();
  drawTexts();
  clearTimeout(waiting);
  waiting = setTimeout(describe, 80);
}

buildMap();
byId("tau").addEventListener("input", event => choose({tau: +event.target.value}));
byId("selected").addEventListener("click", () => choose({all: false}));
byId("all").addEventListener("click", () => choose({all: true}));
byId("list").addEventListener("scroll", () => { scrolled = byId("list").scrollTop; drawList(); });
new ResizeObserver(() => { room = byId("list").clientHeight; drawList(); }).observe(byId("list"));   // a frame may begin with none
byId("list").addEventListener("keydown", event => {
  const page = Math.floor(room / ROW);
  const step = {ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: found.length - 1}[event.key];
  if (step !== undefined) go(step);
  else if (event.key === "Enter" && found.length) choose({neuron: found[active] === state.neuron ? -1 : found[active]});
  else return;
  event.preventDefault();
});
if (spans) {
  const mark = event => event.target.closest("[data-span]");
  const press = at => choose({at: +at.dataset.span === state.at ? -1 : +at.dataset.span});
  byId("rows").addEventListener("click", event => { if (mark(event)) press(mark(event)); });
  for (const kind of ["pointerover", "focusin"]) byId("rows").addEventListener(kind, event => { if (mark(event)) tell(mark(event)); });
  byId("rows").addEventListener("keydown", event => {
    const at = mark(event), step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!at) return;
    if (event.key === "Enter" || event.key === " ") press(at);
    else if (step) {
      const back = getComputedStyle(at.parentElement).direction === "rtl" || at.parentElement.matches(":dir(rtl)");
      const next = (step > 0) !== back ? at.nextElementSibling : at.previousElementSibling;
      if (next) { at.tabIndex = -1; next.tabIndex = 0; next.focus(); }
    } else return;
    event.preventDefault();
  });
}
addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  const last = ["neuron", "at", "language", "class", "layer"].find(name => state[name] >= 0);
  if (last) choose({[last]: -1});
});
addEventListener("hashchange", () => { read(); draw(); });
read();
draw();
})();

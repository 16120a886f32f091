(() => {
"use strict";
const SIDE = 16, INK = "59, 134, 196";   // a cell in pixels; a colour that holds on white and on black
const element = (tag, name, text) => {
  const made = document.createElement(tag);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
function paint(canvas, head) {
  const context = canvas.getContext("2d");
  canvas.width = canvas.height = head.length;   // a pixel a cell; the browser enlarges it
  head.forEach((row, i) => row.forEach((value, j) => {
    context.fillStyle = `rgba(${INK}, ${Math.sqrt(value)})`;   // the root shows small weights
    if (j <= i) context.fillRect(j, i, 1, 1);
  }));
}
function drawText(root, {attention, tokens, heads}) {
  const n = tokens.length, chooser = element("div", "heads"), scroll = element("div", "scroll"), grid = element("div", "grid");
  const number = element("div", "number"), canvas = element("canvas", ""), cell = element("div", "cell");
  number.setAttribute("role", "status");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  grid.append(canvas, cell);
  scroll.append(grid);
  root.append(chooser, scroll, number);
  let head = 0, at = [n - 1, 0];
  const across = tokens.map(name => element("span", "across", name)), down = tokens.map(name => element("span", "", name));
  grid.append(...across, ...down);

  function lay() {   // labels have their size only once the page is laid out
    const left = Math.ceil(Math.max(...down.map(one => one.offsetWidth))) + 6;
    const longest = Math.max(...across.map(one => one.offsetWidth)), top = Math.ceil(.87 * longest) + 12;
    Object.assign(grid.style, {height: `${top + n * SIDE + 2}px`, width: `${left + n * SIDE + Math.ceil(.5 * longest) + 4}px`});
    Object.assign(canvas.style, {left: `${left}px`, top: `${top}px`, width: `${n * SIDE}px`, height: `${n * SIDE}px`});
    across.forEach((one, j) => Object.assign(one.style, {left: `${left + (j + .5) * SIDE}px`, top: `${top - SIDE}px`}));
    down.forEach((one, i) => Object.assign(one.style, {right: `${n * SIDE + Math.ceil(.5 * longest) + 10}px`, top: `${top + i * SIDE}px`}));
    Object.assign(cell.style, {left: `${left + at[1] * SIDE}px`, top: `${top + at[0] * SIDE}px`, width: `${SIDE}px`, height: `${SIDE}px`});
  }
  function show() {
    const [i, j] = at;
    number.textContent = `${heads[head]}: “${tokens[i]}” looks at “${tokens[j]}”: ${attention[head][i][j].toFixed(4)}`;
    across.forEach((one, k) => one.classList.toggle("near", k === j));
    down.forEach((one, k) => one.classList.toggle("near", k === i));
    lay();
  }
  function choose(to) {
    head = to;
    paint(canvas, attention[head]);
    canvas.setAttribute("aria-label", `${heads[head]}, ${n} x ${n} tokens; arrows move`);
    [...chooser.children].forEach((one, k) => one.setAttribute("aria-pressed", k === head));
    show();
  }
  heads.forEach((name, k) => {
    const button = element("button", ""), small = element("canvas", "");
    button.type = "button";
    Object.assign(small.style, {width: "44px", height: "44px"});
    paint(small, attention[k]);
    button.append(small, name);
    button.addEventListener("click", () => choose(k));
    chooser.append(button);
  });
  canvas.addEventListener("pointermove", event => {
    const [j, i] = [event.offsetX, event.offsetY].map(pixels => Math.max(0, Math.min(n - 1, Math.floor(pixels / SIDE))));
    at = [i, Math.min(i, j)];
    show();
  });
  canvas.addEventListener("keydown", event => {
    const [down, right] = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const i = Math.max(0, Math.min(n - 1, at[0] + down));
    at = [i, Math.max(0, Math.min(i, at[1] + right))];
    show();
  });
  choose(0);
  if ("ResizeObserver" in window) new ResizeObserver(lay).observe(root);   // a notebook may show it later
}
const drawAttention = (root, texts) => texts.forEach((text, k) => drawText(root.querySelectorAll(".drawn")[k], text));

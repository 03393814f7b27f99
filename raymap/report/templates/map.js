"use strict";
// The map: a table of shaded cells that is ordered, filtered and walked. Cell numbers: prompt * adapters + adapter.

const data = JSON.parse(document.getElementById("data").textContent);
const { cells, tau } = data;
const prompts = data.prompts.map(([id, text, category], at) => ({ at, id, text, category }));
const adapters = data.adapters.map(([name, method, subject, category], at) => ({ at, name, method, subject, category }));
const LEVELS = 32; // shades are classes s0 to s32 (from 0 up) and d0 to d32 (from degradation to improvement)
const NARROWEST = 18, WITH_NUMBERS = 44, WIDEST = 60; // a cell's width in pixels
const measures = new Map(data.measures.map((measure) => [measure.name, measure]));

const grid = document.getElementById("grid");
const controls = document.getElementById("controls");
const state = {}; // what the form says, with its measure
let shown = { rows: [], columns: [] }; // prompts and adapters in the order on screen
let lines = []; // one <tr> per shown prompt
let cursor = 0; // the number of the cell that has the focus, or had it last

const cellOf = (prompt, adapter) => prompt.at * adapters.length + adapter.at;
const promptOf = (cell) => prompts[Math.floor(cell / adapters.length)];
const adapterOf = (cell) => adapters[cell % adapters.length];
const valueOf = (cell) => cells.values[state.measure.name][cell];
const aboveFloor = (cell) => state.measure.floors.some((name) => tau[name] !== null && cells.values[name][cell] > tau[name]);
const ways = { sem: ["fell", "rose"], signed: ["fell", "rose"], per: ["image"] }; // by which of them a measure's test shifted
const significant = (cell) => state.measure.tests.some((test) => ways[test].some((way) => cells.ways[way][cell]));
const matches = (cell) => (state.cells === "floor" ? aboveFloor(cell) : state.cells === "sure" ? significant(cell) : true);
const format = (value, digits, signed) =>
  value === null ? "–" : (signed && value > 0 ? "+" : "") + value.toFixed(digits).replace("-", "−");
const scaled = (value, digits, signed) => // a number of any scale, with so many significant digits
  value === null ? "–" : (signed && value > 0 ? "+" : "") + String(Number(value.toPrecision(digits))).replaceAll("-", "−");
const printed = (measure, value, digits = measure.digits) =>
  (measure.any_scale ? scaled : format)(value, digits, measure.better);
const brief = (text, length = 120) => (text.length > length ? `${text.slice(0, length)}…` : text);
const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function largest() {
  let top = 0;
  cells.values[state.measure.name].forEach((value) => (top = Math.max(top, Math.abs(value ?? 0))));
  return top;
}

function mean(numbers) {
  const known = numbers.map(valueOf).filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + Math.abs(value), 0) / known.length : -1;
}

// Ordering: keys(item) is a list of keys that are compared one after the other.
function sorted(items, keys) {
  const known = new Map(items.map((item) => [item, keys(item)]));
  return [...items].sort((a, b) => {
    const [one, other] = [known.get(a), known.get(b)];
    const k = one.findIndex((key, i) => key !== other[i]);
    return k < 0 ? a.at - b.at : one[k] < other[k] ? -1 : 1;
  });
}

function orderedRows(rows, columns) {
  const judged = columns.filter((a) => a.method !== data.control);
  const shift = (p) => -mean((judged.length ? judged : columns).map((a) => cellOf(p, a)));
  if (state.rows === "cluster") return data.cluster.prompts.map((k) => prompts[k]).filter((p) => rows.includes(p));
  const category = (p) => data.categories.indexOf(p.category);
  return sorted(rows, (p) => (state.rows === "shift" ? [shift(p)] : [category(p), shift(p)]));
}

function orderedColumns(rows, columns) {
  const shift = (a) => -mean(rows.map((p) => cellOf(p, a)));
  if (state.columns === "cluster") return data.cluster.adapters.map((k) => adapters[k]).filter((a) => columns.includes(a));
  const control = (a) => (a.method === data.control ? 1 : 0);
  const keys = {
    category: (a) => [a.at], // as the data lists them: category, method, subject, controls last
    method: (a) => [control(a), adapters.findIndex((other) => other.method === a.method), a.at],
    shift: (a) => [control(a), shift(a)],
  };
  return sorted(columns, keys[state.columns]);
}

function filtered() {
  const words = state.text.trim().toLowerCase();
  const holds = (text) => text.toLowerCase().includes(words);
  let columns = adapters.filter((a) => !state.method || a.method === state.method);
  let rows = prompts.filter((p) => !state.category || p.category === state.category);
  const named = columns.filter((a) => holds(a.name));
  const said = rows.filter((p) => holds(p.text) || holds(p.id));
  if (words && (said.length || !named.length)) rows = said; // a text that no prompt contains may name adapters
  else if (words) columns = named;
  if (state.cells) {
    const all = columns;
    columns = columns.filter((a) => rows.some((p) => matches(cellOf(p, a))));
    rows = rows.filter((p) => all.some((a) => matches(cellOf(p, a))));
  }
  return { rows: orderedRows(rows, columns), columns: orderedColumns(rows, columns) };
}

function shade(value, top) {
  if (value === null) return "n";
  const { better } = state.measure;
  if (better) return `d${Math.round(((top ? (better * value) / top : 0) + 1) * (LEVELS / 2))}`;
  return `s${top ? Math.round((value / top) * LEVELS) : 0}`;
}

function markup(cell, top) {
  const value = valueOf(cell);
  const classes = [shade(value, top)];
  if (cells.target[cell]) classes.push("t");
  if (significant(cell)) classes.push("q");
  if (!matches(cell)) classes.push("off");
  return `<td class="${classes.join(" ")}" data-cell="${cell}">${printed(state.measure, value, 3)}</td>`;
}

function draw() {
  Object.assign(state, Object.fromEntries(new FormData(controls)));
  state.measure = measures.get(state.measure);
  shown = filtered();
  const { rows, columns } = shown;
  const top = largest();
  const heads = columns.map((a) => `<th scope="col" title="${escaped(brief(a.name))}"><span>${escaped(brief(a.name, 60))}</span></th>`);
  grid.tHead.innerHTML = `<tr><th scope="col">${escaped(state.measure.label)}</th>${heads.join("")}</tr>`;
  const body = [];
  rows.forEach((p, r) => {
    if (state.rows === "category" && p.category !== rows[r - 1]?.category)
      body.push(`<tr class="group"><th scope="rowgroup" colspan="${columns.length + 1}">${escaped(p.category)}</th></tr>`);
    const line = columns.map((a) => markup(cellOf(p, a), top)).join("");
    body.push(`<tr class="line"><th scope="row" title="${escaped(brief(p.text, 300))}"><bdi>${escaped(brief(p.text))}</bdi></th>${line}</tr>`);
  });
  grid.tBodies[0].innerHTML = body.join("");
  fit();
  lines = [...grid.tBodies[0].querySelectorAll("tr.line")];
  drawLegend(top);
  const cellCount = state.cells ? rows.reduce((n, p) => n + columns.filter((a) => matches(cellOf(p, a))).length, 0) : null;
  document.getElementById("count").textContent =
    `${rows.length} of ${prompts.length} prompts, ${columns.length} of ${adapters.length} adapters${adapters.some((a) => a.method === data.control) ? " and controls" : ""}` +
    (cellCount === null ? "" : `, ${cellCount} cells ${state.cells === "floor" ? "above the noise floor" : "significant"}`);
  if (rows.length && columns.length) tdOf(nearest(cursor)).tabIndex = 0;
}

// Cells share the available width, and show their numbers if they are wide enough.
function fit() {
  const room = document.getElementById("heat").clientWidth - parseInt(getComputedStyle(grid).getPropertyValue("--first"));
  const each = Math.floor((room - 20) / shown.columns.length) - 1;
  const width = Math.min(Math.max(each, NARROWEST), WIDEST);
  grid.style.setProperty("--columns", shown.columns.length);
  grid.style.setProperty("--cell", `${width}px`);
  grid.className = width >= WITH_NUMBERS ? "wide" : "";
}

function drawLegend(top) {
  const { better } = state.measure;
  const shown = (value) => printed(state.measure, value, 3);
  const bar = Array.from({ length: LEVELS + 1 }, (_, k) => `<i class="${better ? "d" : "s"}${k}"></i>`);
  document.getElementById("legend").innerHTML = bar.join("");
  document.getElementById("legend-low").textContent = better ? `worse ${shown(-better * top)}` : "0";
  document.getElementById("legend-high").textContent = better ? `${shown(better * top)} better` : shown(top);
}

// The cursor: Tab reaches one cell, and the arrow keys move on from there.
function place(cell) {
  return { r: shown.rows.indexOf(promptOf(cell)), c: shown.columns.indexOf(adapterOf(cell)) };
}

function nearest(cell) {
  const { r, c } = place(cell);
  return cellOf(shown.rows[Math.max(r, 0)], shown.columns[Math.max(c, 0)]);
}

function tdOf(cell) {
  const { r, c } = place(cell);
  return lines[r].cells[c + 1];
}

// The shown cell that is some rows and columns away, within the map's edges.
function stepped(cell, down, across) {
  const { r, c } = place(nearest(cell));
  const within = (k, length) => Math.min(Math.max(k, 0), length - 1);
  return cellOf(shown.rows[within(r + down, shown.rows.length)], shown.columns[within(c + across, shown.columns.length)]);
}

function mark(cell) {
  grid.querySelectorAll("th.at").forEach((th) => th.classList.remove("at"));
  const td = tdOf(cell);
  td.parentElement.cells[0].classList.add("at");
  grid.tHead.rows[0].cells[td.cellIndex].classList.add("at");
  document.getElementById("readout").textContent = described(cell);
}

function moveTo(cell) {
  grid.querySelectorAll("td[tabindex]").forEach((td) => td.removeAttribute("tabindex"));
  cursor = cell;
  const td = tdOf(cell);
  td.tabIndex = 0;
  td.focus();
}

function numbersOf(cell) {
  const numbers = data.measures.map((m) => [m.label, printed(m, cells.values[m.name][cell])]);
  const said = { fell: "score fell", image: "images moved", rose: "score rose" };
  const how = Object.keys(said).filter((way) => cells.ways[way][cell]).map((way) => said[way]);
  const answer = cells.answer[cell] === null ? "–" : cells.answer[cell] + (how.length ? ` (${how.join(", ")})` : "");
  return [["verdict", answer], ...numbers, ["seeds", String(cells.seeds[cell])]];
}

function described(cell) {
  const numbers = numbersOf(cell).map(([name, value]) => `${name} ${value}`).join(" · ");
  const target = cells.target[cell] ? " (target prompt)" : "";
  return `${brief(promptOf(cell).text)} · ${adapterOf(cell).name}${target}: ${numbers}`;
}

const STEPS = {
  ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -Infinity], End: [0, Infinity],
};

grid.addEventListener("keydown", (event) => {
  const cell = Number(event.target.dataset.cell ?? NaN);
  if (Number.isNaN(cell)) return;
  if (event.key in STEPS) {
    const [down, across] = STEPS[event.key];
    moveTo(stepped(cell, event.ctrlKey ? down * Infinity || 0 : down, across));
  } else if (event.key === "Enter" || event.key === " ") openPair(cell);
  else return;
  event.preventDefault();
});
grid.addEventListener("click", (event) => {
  const td = event.target.closest("td");
  if (!td) return;
  moveTo(Number(td.dataset.cell));
  openPair(cursor);
});
for (const kind of ["mouseover", "focusin"])
  grid.addEventListener(kind, (event) => event.target.matches("td") && mark(Number(event.target.dataset.cell)));

function options(name, choices) {
  for (const [value, text] of choices) controls.elements[name].add(new Option(text, value));
}

options("measure", data.measures.map((m) => [m.name, m.says ? `${m.label}: ${m.says}` : m.label]));
options("category", data.categories.map((name) => [name, name]));
options("method", [...new Set(adapters.map((a) => a.method))].sort().map((name) => [name, name]));
controls.addEventListener("input", draw);
addEventListener("resize", fit);
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("reset", () => setTimeout(draw));
draw();

// The pair: a dialog with a cell's base and adapted image of one seed, which can be compared in three ways.

const dialog = document.getElementById("pair");
const byId = (id) => document.getElementById(id);
const pairAt = new Map(data.pairs.cell.map((cell, k) => [cell, k]));
let images = null; // parsed when they are first needed
let current = 0; // the cell that the dialog shows
let returnTo = null; // the element that gets the focus back

function imageUrl(position) {
  images ??= JSON.parse(byId("images").textContent);
  return `data:image/webp;base64,${images[position]}`;
}

function openPair(cell) {
  returnTo = document.activeElement;
  fill(cell);
  if (!dialog.open) {
    setMode("side");
    dialog.showModal();
    byId("pair-prompt").focus();
  }
}

function fill(cell) {
  current = cell;
  const [prompt, adapter, k] = [promptOf(cell), adapterOf(cell), pairAt.get(cell)];
  byId("pair-prompt").firstElementChild.textContent = prompt.text;
  byId("pair-adapter").textContent = adapter.name;
  byId("pair-kind").textContent =
    `· ${adapter.method} · ${adapter.category} · ${prompt.category}${cells.target[cell] ? " · target prompt" : ""}`;
  const numbers = numbersOf(cell);
  if (k !== undefined) numbers.push([`this seed (${data.pairs.seed[k]})`, seedNumbers(k)]);
  byId("pair-numbers").replaceChildren(...numbers.map(([name, value]) => entry(name, value)));
  const embedded = k !== undefined && data.pairs.base[k] !== null;
  byId("pair-views").hidden = !embedded;
  byId("pair-none").hidden = embedded;
  byId("pair-none").textContent =
    k === undefined ? "No image of this cell is kept." : "The images of this cell are not in the page, which would grow too large; follow the links.";
  byId("pair-links").replaceChildren(...(k === undefined ? [] : links(prompt, adapter, k)));
  if (embedded) show(k, prompt, adapter);
}

function seedNumbers(k) {
  if (!data.pairs.drawn[k]) return "the base's own image, by proof";
  const [base, adapted] = [data.pairs.clip_base[k], data.pairs.clip_adapted[k]];
  return `CLIP ${format(base, 4)} → ${format(adapted, 4)}, LPIPS ${format(data.pairs.lpips[k], 3)}`;
}

function entry(name, value) {
  const [group, term, text] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
  term.textContent = name;
  text.textContent = value;
  group.append(term, text);
  return group;
}

function links(prompt, adapter, k) {
  const link = (folder, text) => {
    const a = document.createElement("a");
    a.href = `../images/${[folder, prompt.id].map(encodeURIComponent).join("/")}/${data.pairs.seed[k]}.png`;
    a.textContent = text;
    a.target = "_blank";
    a.rel = "noopener";
    return a;
  };
  const kept = data.pairs.drawn[k] ? [link("base", "base"), ", ", link(adapter.name, "adapted")] : [link("base", "base")];
  return ["As kept in the run folder: ", ...kept];
}

async function show(k, prompt, adapter) {
  const [base, adapted] = [byId("pair-base"), byId("pair-adapted")];
  for (const [image, position, name] of [[base, data.pairs.base[k], "base"], [adapted, data.pairs.adapted[k], "adapted"]]) {
    image.src = imageUrl(position);
    image.alt = `${name} image: ${brief(prompt.text)}${name === "base" ? "" : `, under ${adapter.name}`}`;
    byId(`stage-${name}`).src = image.src;
    byId(`stage-${name}`).alt = image.alt;
  }
  const cell = current;
  await Promise.all([base.decode(), adapted.decode()]);
  if (cell === current) drawDifference(base, adapted);
}

function drawDifference(base, adapted) {
  const canvas = byId("pair-difference");
  const [width, height] = [base.naturalWidth, base.naturalHeight];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = (image) => {
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, width, height);
  };
  const [one, other] = [pixels(base), pixels(adapted)];
  for (let i = 0; i < one.data.length; i++)
    if (i % 4 !== 3) one.data[i] = Math.abs(other.data[i] - one.data[i]) * data.gain; // clamped to 255 by its type
  context.putImageData(one, 0, 0);
}

function setMode(mode) {
  dialog.dataset.mode = mode;
  dialog.querySelector(".side").hidden = mode !== "side";
  dialog.querySelector(".stage").hidden = mode === "side";
  dialog.querySelectorAll("[data-mode]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.mode === mode));
  if (mode === "slide") slide();
  else flip(false);
}

function flip(adapted) {
  byId("stage-adapted").style.clipPath = adapted ? "none" : "inset(0 0 0 100%)";
  byId("stage-name").textContent = adapted ? "adapted" : "base";
}

function slide() {
  byId("stage-adapted").style.clipPath = `inset(0 0 0 ${100 - byId("slider").value}%)`;
}

function walk(down, across) {
  fill(stepped(current, down, across));
  if (dialog.dataset.mode === "flip") flip(false);
}

dialog.addEventListener("keydown", (event) => {
  if (event.target === byId("slider") && event.key.startsWith("Arrow")) return;
  if (event.key.startsWith("Arrow") && event.key in STEPS) walk(...STEPS[event.key]);
  else if (event.key === " " && dialog.dataset.mode === "flip") flip(true);
  else return;
  event.preventDefault();
});
dialog.addEventListener("keyup", (event) => {
  if (event.key !== " " || dialog.dataset.mode !== "flip") return;
  event.preventDefault(); // or the focused button would be pressed
  flip(false);
});
const frame = dialog.querySelector(".frame");
frame.addEventListener("pointerdown", () => dialog.dataset.mode === "flip" && flip(true));
for (const kind of ["pointerup", "pointerleave", "pointercancel"])
  frame.addEventListener(kind, () => dialog.dataset.mode === "flip" && flip(false));
byId("slider").addEventListener("input", slide);
dialog.addEventListener("click", (event) => {
  const { mode, step } = event.target.dataset;
  if (event.target === dialog || event.target.id === "pair-close") dialog.close();
  else if (step) walk(...step.split(",").map(Number));
  else if (mode && event.target !== dialog) setMode(mode);
});
dialog.addEventListener("close", () => {
  if (grid.contains(returnTo) && shown.rows.includes(promptOf(current)) && shown.columns.includes(adapterOf(current))) moveTo(current);
  else returnTo?.focus();
});

// Buttons elsewhere on the page that open a cell.
document.querySelectorAll("button[data-prompt]").forEach((button) =>
  button.addEventListener("click", () => {
    const prompt = prompts.find((p) => p.id === button.dataset.prompt);
    const adapter = adapters.find((a) => a.name === button.dataset.adapter);
    if (prompt && adapter) openPair(cellOf(prompt, adapter));
  })
);

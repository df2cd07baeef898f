"use strict";
const texts = JSON.parse(document.getElementById("colours").textContent);
const tables = {};
for (const [name, hex] of Object.entries(texts)) {
  tables[name] = Uint8Array.from({ length: 768 }, (_, i) => parseInt(hex.substr(2 * i, 2), 16));
}
const gradient = (name) => {
  const at = (i) => `rgb(${tables[name].slice(3 * i, 3 * i + 3).join(" ")})`;
  return `linear-gradient(to right, ${Array.from({ length: 17 }, (_, i) => at(Math.min(255, 16 * i))).join(", ")})`;
};
const figures = Array.from(document.querySelectorAll("figure.map"));
const state = new Map();

async function levels(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2, found = new Uint16Array(count);
  for (let i = 0, sum = 0; i < count; i++) {
    sum = (sum + planes[i] + 256 * planes[count + i]) & 65535;
    found[i] = sum;
  }
  return found;
}

async function unpack(figure) {
  const own = state.get(figure);
  if (!own.under.src) {
    own.under.src = document.getElementById(`pixels${figure.dataset.photo}`).src;
    own.canvas.before(own.under);
  }
  own.unpacking ??= Promise.all(Array.from(figure.querySelectorAll("script"), (one) => levels(one.textContent)));
  [own.values, own.hatched] = await own.unpacking;
}

async function draw(figure) {
  await unpack(figure);
  paint(figure);
}

function paint(figure) {
  const own = state.get(figure);
  if (!own.values || figure.dataset.drawn) return;
  const { about, canvas, values } = own, table = tables[about.cmap];
  const picture = own.context.createImageData(canvas.width, canvas.height), out = picture.data;
  const ends = Math.max(Math.abs(about.from), Math.abs(about.to)) || 1;
  for (let i = 0; i < values.length; i++) {
    const value = valueAt(own, i);
    if (value === null) continue;
    const share = Math.min(1, Math.max(0, (value - about.from) / (about.to - about.from)));
    const colour = 3 * Math.min(255, Math.floor(256 * share));
    out[4 * i] = table[colour];
    out[4 * i + 1] = table[colour + 1];
    out[4 * i + 2] = table[colour + 2];
    // On the photo, half-strong evidence stays visible by the square root; zero shows the photo alone.
    out[4 * i + 3] = about.signed && !about.pale ? 255 * Math.sqrt(Math.min(1, Math.abs(value) / ends)) : 255;
    if (own.hatched && own.hatched[i]) hatch(out, i, canvas.width);
  }
  own.context.putImageData(picture, 0, 0);
  figure.dataset.drawn = "yes";
}

// Slanted lines, dark beside light, as in the pictures: grey laid over what is there.
function hatch(out, i, width) {
  const place = ((i % width) + Math.floor(i / width)) % 8;
  if (place > 1) return;
  const [grey, cover] = place ? [255, 0.65] : [0, 0.75], rest = (out[4 * i + 3] / 255) * (1 - cover);
  for (let c = 4 * i; c < 4 * i + 3; c++) out[c] = (grey * cover + out[c] * rest) / (cover + rest);
  out[4 * i + 3] = 255 * (cover + rest);
}

function valueAt(own, i) {
  const level = own.values[i];
  if (!level) return null;
  return own.about.low + ((level - 1) / 65534) * (own.about.high - own.about.low);
}

function setOpacity(figure, percent) {
  figure.style.setProperty("--opacity", percent / 100);
  figure.querySelector("input").value = percent;
}

function pointAt(photo, x, y) {
  for (const figure of figures.filter((one) => one.dataset.photo === photo)) {
    const own = state.get(figure), output = figure.querySelector("output");
    if (!own.values) continue;
    const column = Math.min(own.canvas.width - 1, Math.max(0, Math.floor(x * own.canvas.width)));
    const row = Math.min(own.canvas.height - 1, Math.max(0, Math.floor(y * own.canvas.height)));
    const value = valueAt(own, row * own.canvas.width + column);
    output.textContent = `${value === null ? "not a number" : shown(value)} at ${column}, ${row}`;
    own.cross.hidden = false;
    own.cross.style.left = `${(100 * (column + 0.5)) / own.canvas.width}%`;
    own.cross.style.top = `${(100 * (row + 0.5)) / own.canvas.height}%`;
    own.place = [column, row];
  }
}

function shown(value) {
  return (value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(3) : value.toPrecision(4)).replace("-", "\u2212");
}

for (const image of document.querySelectorAll("img[data-same]")) {
  image.src = document.getElementById(image.dataset.same).src;
}
// Nothing waits for a page that is printed: all maps are unpacked before somebody may want to, in idle time.
addEventListener("beforeprint", () => figures.forEach(paint));
const whenIdle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
const rest = (number) => {
  if (number === figures.length) document.documentElement.dataset.unpacked = "yes";
  else whenIdle(() => unpack(figures[number]).finally(() => rest(number + 1)));
};

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "300px" });

for (const figure of figures) {
  const about = JSON.parse(figure.dataset.about), canvas = figure.querySelector("canvas");
  const under = document.createElement("img"), cross = document.createElement("div");
  const photo = figure.dataset.photo;
  under.className = "under";
  under.alt = "";
  cross.className = "cross";
  cross.hidden = true;
  canvas.after(cross);
  state.set(figure, { about, canvas, under, cross, context: canvas.getContext("2d"), values: null, unpacking: null, place: [canvas.width >> 1, canvas.height >> 1] });
  setOpacity(figure, about.pale ? 100 : about.signed ? 85 : 65);
  figure.querySelector("i").style.background = gradient(about.cmap);
  figure.querySelector("input").addEventListener("input", (event) => setOpacity(figure, event.target.value));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    pointAt(photo, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  canvas.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    pointAt(photo, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  canvas.addEventListener("focus", () => figure.querySelector("output").setAttribute("aria-live", "polite"));
  canvas.addEventListener("blur", () => figure.querySelector("output").setAttribute("aria-live", "off"));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const size = event.shiftKey ? 16 : 1, place = state.get(figure).place;
    pointAt(photo, (place[0] + size * step[0] + 0.5) / canvas.width, (place[1] + size * step[1] + 0.5) / canvas.height);
  });
  seen.observe(figure);
}

document.getElementById("opacity").addEventListener("input", (event) => {
  for (const figure of figures) setOpacity(figure, event.target.value);
});
for (const box of document.querySelectorAll(".toolbar input[type=checkbox]")) {
  box.addEventListener("change", () => {
    for (const figure of figures) if (figure.dataset.method === box.dataset.method) figure.hidden = !box.checked;
  });
}
rest(0);

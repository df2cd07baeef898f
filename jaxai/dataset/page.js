"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = document.getElementById("rows");
  const count = data.path.length;
  // Browsers cannot make elements of any height.
  const TALLEST = 8e6, SPARE = 6, ACROSS = 16;

  function make(kind, className, words) {
    const element = document.createElement(kind);
    if (className) element.className = className;
    if (words !== undefined) element.textContent = words;
    return element;
  }

  function tile(folder, place, shown, words, about) {
    const element = make("div", "tile");
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", words);
    element.title = words;
    const scale = shown / about.side, step = about.pitch * scale;
    const number = Math.floor(place / data.per), inside = place % data.per;
    element.style.backgroundImage = `url("sheets/${folder}/${number}.jpg")`;
    element.style.backgroundSize = `${ACROSS * step}px auto`;
    element.style.backgroundPosition = `${-(inside % ACROSS) * step}px ${-Math.floor(inside / ACROSS) * step}px`;
    if (about.side < 48) element.classList.add("small");
    return element;
  }

  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const wide = matchMedia("(min-width: 40.01rem)");
  let height, size;

  function measure() {
    size = wide.matches ? 72 : 60;
    const lines = 2 + (data.labels.length > 0) + (data.rated.length > 0) + Boolean(data.other);
    height = wide.matches ? Math.max(88, 14 + 20 * lines) : size + 24 + 21 * lines;
    rows.style.setProperty("--height", `${height}px`);
  }

  function row(i) {
    const element = make("div", "image");
    element.setAttribute("role", "listitem");
    const tiles = make("div", "tiles"), said = make("div", "said");
    const error = data.error[i];
    if (data.photos) tiles.append(tile("photos", i, size, `photo ${data.path[i]}`, data));
    if (error === undefined) {
      for (const method of data.methods) tiles.append(tile(method.folder, i, size, method.title, data));
      if (data.other && data.other.at[i] >= 0)
        tiles.append(tile("other", data.other.at[i], size, data.other.title, data.other));
    }
    const name = make("p");
    if (error !== undefined) name.append(make("span", "mark", error));
    else {
      data.top.forEach((top, k) => {
        if (top[i] < 0) return;
        const words = `${data.names[top[i]]} ${percent(data.probability[k][i])}`;
        name.append(k ? `, ${words}` : make("b", "", words));
      });
      if (data.target[i] !== data.top[0][i]) name.append(`; explained: ${data.names[data.target[i]]}`);
    }
    said.append(name);
    if (data.label[i] >= 0) {
      const label = make("p", "", `label: ${data.labels[data.label[i]]} `);
      if (data.wrong && data.wrong[i] && error === undefined) label.append(make("span", "mark", "otherwise classified"));
      said.append(label);
    }
    if (data.other && data.other.said[i]) {
      const [top, probability] = data.other.said[i];
      const line = make("p", "", `other: ${top} ${percent(probability)}`);
      const alike = data.other.similarity[i];
      if (alike !== null) line.append(`, maps ${alike.toFixed(2)} alike`);
      if (top !== data.names[data.top[0][i]]) line.append(" ", make("span", "mark", "another class"));
      said.append(line);
    }
    const rated = data.rated.filter((one) => one.values[i] !== null).map((one) => `${one.name} ${one.values[i]}`);
    if (rated.length) said.append(make("p", "rated", rated.join(", ")));
    const path = make("p", "path", data.path[i]);
    path.title = data.path[i];
    said.append(path);
    element.append(tiles, said);
    return element;
  }

  // Which rows, in which order.
  const state = { words: "", top: -1, order: "plan", flags: new Set(), group: null };
  let shown = [];

  function margin(i) {
    return data.probability[0][i] - (data.probability[1] ? data.probability[1][i] : 0);
  }
  const orders = { plan: ["order of the plan", null], uncertain: ["most uncertain first", margin],
    sure: ["surest first", (i) => -data.probability[0][i]] };
  data.rated.forEach((one, k) => {
    const sign = one.better === "higher" ? 1 : -1;
    orders[`rated${k}`] = [`worst ${one.name} first`, (i) => one.values[i] === null ? Infinity : sign * one.values[i]];
  });
  if (data.other) orders.apart = ["least similar maps first",
    (i) => data.other.similarity[i] === null ? Infinity : data.other.similarity[i]];
  if (data.clusters) orders.clusters = ["by cluster", (i) => data.clusters.of[i] < 0 ? Infinity : data.clusters.of[i]];

  const flags = {};
  if (data.wrong) flags.wrong = ["otherwise classified", (i) => data.wrong[i] && data.error[i] === undefined];
  if (data.other) flags.apart = ["another class in the other store",
    (i) => data.other.said[i] && data.other.said[i][0] !== data.names[data.top[0][i]]];
  if (Object.keys(data.error).length) flags.failed = ["errors", (i) => data.error[i] !== undefined];

  function choose() {
    const words = state.words.toLowerCase(), found = [];
    const tests = [...state.flags].map((name) => flags[name][1]);
    for (let i = 0; i < count; i++) {
      if (state.top >= 0 && data.top[0][i] !== state.top) continue;
      if (state.group && !state.group(i)) continue;
      if (words && !data.path[i].toLowerCase().includes(words)) continue;
      if (tests.every((test) => test(i))) found.push(i);
    }
    const key = orders[state.order][1];
    if (key) {
      const keys = new Float64Array(count);
      // Images with errors have no place in an order.
      for (const i of found) keys[i] = data.error[i] === undefined ? key(i) : Infinity;
      found.sort((a, b) => (keys[a] === keys[b] ? a - b : keys[a] - keys[b]));
    }
    shown = found;
    document.getElementById("count").textContent = `${shown.length} of ${count} images`;
    rows.style.height = `${Math.min(TALLEST, shown.length * height)}px`;
    drawn = "";
    draw();
  }

  let drawn = "";
  function draw() {
    const above = Math.max(0, -rows.getBoundingClientRect().top), view = innerHeight;
    const total = shown.length * height, tall = Math.min(TALLEST, total);
    // Where the list is too tall, the place in it is a share of the way.
    const place = total > tall ? (Math.min(above, tall - view) / (tall - view)) * (total - view) : above;
    const first = Math.max(0, Math.floor(place / height) - SPARE);
    const last = Math.min(shown.length, Math.ceil((place + view) / height) + SPARE);
    const now = `${first} ${last} ${total > tall ? above : 0}`;
    if (now === drawn) return;
    drawn = now;
    const found = [];
    for (let k = first; k < last; k++) {
      const element = row(shown[k]);
      element.setAttribute("aria-posinset", k + 1);
      element.setAttribute("aria-setsize", shown.length);
      element.style.top = `${k * height - place + above}px`;
      found.push(element);
    }
    rows.replaceChildren(...found);
  }

  function labelled(words, control) {
    const label = make("label", "", `${words} `);
    label.append(control);
    return label;
  }

  function select(pairs, changed) {
    const control = make("select");
    for (const [value, words] of pairs) {
      const option = make("option", "", words);
      option.value = value;
      control.append(option);
    }
    control.addEventListener("change", () => { changed(control.value); choose(); });
    return control;
  }

  const toolbar = document.querySelector(".toolbar");
  const search = make("input");
  search.type = "search";
  let waiting;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.words = search.value; choose(); }, 120);
  });
  toolbar.append(labelled("path", search));
  const seen = [...new Set(data.top[0])].filter((top) => top >= 0);
  seen.sort((a, b) => data.names[a].localeCompare(data.names[b]));
  toolbar.append(labelled("class", select([["-1", "all"], ...seen.map((top) => [String(top), data.names[top]])],
    (value) => { state.top = Number(value); })));
  toolbar.append(labelled("order", select(Object.entries(orders).map(([name, [words]]) => [name, words]),
    (value) => { state.order = value; })));
  for (const [name, [words]] of Object.entries(flags)) {
    const box = make("input");
    box.type = "checkbox";
    box.addEventListener("change", () => { box.checked ? state.flags.add(name) : state.flags.delete(name); choose(); });
    const label = make("label");
    label.append(box, ` ${words}`);
    toolbar.append(label);
  }

  // Cards of classes and of clusters: one that is pressed shows its images alone.
  function cards(title, list) {
    const details = make("details"), box = make("div", "cards");
    details.append(make("summary", "", title), box);
    details.addEventListener("toggle", () => {
      if (box.childElementCount) return;
      list.forEach(({ words, about, tiles, test }) => {
        const card = make("button", "card"), pictures = make("div", "tiles");
        card.type = "button";
        card.setAttribute("aria-pressed", "false");
        pictures.append(...tiles());
        card.append(make("b", "", words), pictures, make("small", "", about));
        card.addEventListener("click", () => {
          const press = card.getAttribute("aria-pressed") === "false";
          document.querySelectorAll(".card").forEach((one) => one.setAttribute("aria-pressed", "false"));
          card.setAttribute("aria-pressed", String(press));
          state.group = press ? test : null;
          choose();
        });
        box.append(card);
      });
    });
    document.getElementById("cards").append(details);
  }

  const groups = data.groups, isLabel = groups.by === "label";
  const left = groups.all > groups.names.length ? ` (the ${groups.names.length} largest of ${groups.all})` : "";
  cards(`Mean maps by ${isLabel ? "label" : "explained class"}${left}`, groups.names.map((name, k) => ({
    words: name, about: `${groups.counts[k]} images`,
    tiles: () => data.methods.map((method) => tile(`means-${method.folder}`, k, 64, `mean ${method.title}`, data)),
    test: isLabel ? (i) => data.label[i] >= 0 && data.labels[data.label[i]] === name
      : (i) => data.target[i] >= 0 && data.names[data.target[i]] === name,
  })));
  if (data.clusters) cards(`Clusters of ${data.clusters.title} by explained class`, data.clusters.cards.map((card, k) => ({
    words: `${card.name}, cluster ${card.cluster}`, about: `${card.count} images`,
    tiles: () => [tile("clusters", k, 64, "mean map of the cluster", data)],
    test: (i) => data.clusters.of[i] === k,
  })));

  const heads = make("div", "heads");
  const titles = [...(data.photos ? ["photo"] : []), ...data.methods.map((method) => method.title),
    ...(data.other ? [data.other.title] : [])];
  for (const words of titles) {
    const head = make("span", "", words);
    head.title = words;
    heads.append(head);
  }
  rows.before(heads);

  addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", () => { measure(); choose(); });
  measure();
  choose();
  document.body.dataset.ready = "";
})();

// Lays the page's figures out by any of their fields. Knows nothing of the network; works from a file.
// A cell is {v: a value's number in each field, done, id, el}; a field {name, label, values: words, raw: JSON texts}.
"use strict";

// Give every cell its place: sections of rows and columns, in the order the cells come in.
// Fields that follow from the others make no sections.
function pivot(cells, count, rows, columns) {
  const placed = [...rows, ...columns];
  let kept = [...Array(count).keys()].filter((field) => !placed.includes(field));
  for (const field of [...kept].reverse()) {
    const rest = [...placed, ...kept.filter((other) => other !== field)];
    const seen = new Map();
    const follows = cells.every((cell) => {
      const place = pick(cell, rest).join();
      if (!seen.has(place)) seen.set(place, cell.v[field]);
      return seen.get(place) === cell.v[field];
    });
    if (follows) kept = kept.filter((other) => other !== field);
  }
  const sections = new Map();
  for (const cell of cells) {
    const name = pick(cell, kept).join();
    if (!sections.has(name)) sections.set(name, {fields: kept, values: pick(cell, kept), at: new Map()});
    const {at} = sections.get(name);
    const place = pick(cell, rows).join() + "|" + pick(cell, columns).join();
    if (!at.has(place) || (cell.done && !at.get(place).done)) at.set(place, cell);
  }
  return [...sections.values()].map((section) => ({
    ...section,
    rows: nested([...section.at.values()].map((cell) => pick(cell, rows))),
    columns: nested([...section.at.values()].map((cell) => pick(cell, columns))),
  }));
}

// A section in strips of about equal length, as text is broken into lines; they end where outer groups do, if these
// are alike.
function strips(section, longest) {
  const {columns} = section, starts = columns.flatMap((key, n) => (n && key[0] === columns[n - 1][0] ? [] : [n]));
  if (columns.length <= longest) return [section];
  const sizes = new Set(starts.map((start, n) => (starts[n + 1] ?? columns.length) - start));
  const whole = columns[0].length > 1 && sizes.size === 1 ? [...sizes][0] : columns.length;
  const length = whole <= longest ? longest - longest % whole : Math.ceil(whole / Math.ceil(whole / longest));
  const step = Math.max(whole, length), found = [];
  for (let start = 0; start < columns.length; start += step) {
    const group = columns.slice(start, start + step);
    for (let n = 0; n < group.length; n += length) found.push({...section, columns: group.slice(n, n + length)});
  }
  return found;
}

// The cells of a list: one of each place, a finished one where there is one.
function listed(cells) {
  const found = new Map();
  for (const cell of cells) {
    const place = cell.v.join();
    if (!found.has(place) || (cell.done && !found.get(place).done)) found.set(place, cell);
  }
  return [...found.values()];
}

// Pixels are shown as squares only where an image is drawn wider than it is.
function isEnlarged(drawn, natural) {
  return drawn > natural;
}

function pick(cell, fields) {
  return fields.map((field) => cell.v[field]);
}

// Distinct keys, equal outer values together. Values are numbered in the order they come in.
function nested(keys) {
  const found = new Map(keys.map((key) => [key.join(), key]));
  return [...found.values()].sort((a, b) => a[0] - b[0] || (a[1] ?? 0) - (b[1] ?? 0));
}

// A cell's recipe as a sweep of one image: JSON, which is YAML too. Numbers stay the texts they came as.
function recipe(cell, fields, constants, order) {
  const raw = {...constants};
  fields.forEach((field, number) => { if (field.raw) raw[field.name] = field.raw[cell.v[number]]; });
  const lines = order.filter((name) => raw[name] !== "null").map((name) => [name, raw[name]]);
  lines.unshift(["name", JSON.stringify("again-" + cell.id.slice(0, 8))]);
  return "{\n" + lines.map(([name, text]) => `  ${JSON.stringify(name)}: ${text}`).join(",\n") + "\n}";
}

// What the address says, as far as it names fields there are; else the page's own layout.
function readAddress(hash, fields, fallback) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const numbers = (text) => (text ?? "").split(",").map((name) => fields.findIndex((f) => f.name === name));
  const rows = numbers(said.get("rows")), columns = numbers(said.get("cols"));
  const all = [...rows, ...columns];
  const list = said.get("rows") === "" && !said.get("cols");
  const good = list || all.every((n) => n >= 0) && new Set(all).size === all.length && rows.length <= 2 && columns.length <= 2;
  const cell = Number(said.get("cell"));
  return {
    rows: list ? [] : good ? rows : fallback.rows,
    columns: list ? [] : good ? columns : fallback.columns,
    cell: cell >= 32 && cell <= 1024 ? cell : fallback.cell,
    wrap: ["on", "off"].includes(said.get("wrap")) ? said.get("wrap") === "on" : fallback.wrap,
    theme: ["light", "dark"].includes(said.get("theme")) ? said.get("theme") : "",
    plain: said.get("diff") === "off",
  };
}

function writeAddress(view, fields) {
  const said = new URLSearchParams();
  said.set("rows", view.rows.map((n) => fields[n].name).join());
  said.set("cols", view.columns.map((n) => fields[n].name).join());
  said.set("wrap", view.wrap ? "on" : "off");
  said.set("cell", String(view.cell));
  if (view.theme) said.set("theme", view.theme);
  if (view.plain) said.set("diff", "off");
  return "#" + said.toString().replaceAll("%2C", ",");
}

// Put a field at one of the four places of a view; the field that stood there goes where this one was.
// A view without rows is a list; from there a field takes another of the `count` with it.
function choose(view, side, level, field, count) {
  if (side === "rows" && level === 0 && field < 0) return {...view, rows: [], columns: []};
  if (!view.rows.length) {
    const other = field ? 0 : 1;
    if (field < 0 || other >= count) return view;
    return {...view, rows: [side === "rows" ? field : other], columns: [side === "rows" ? other : field]};
  }
  const next = {...view, rows: [...view.rows], columns: [...view.columns]};
  const before = next[side][level];
  for (const other of ["rows", "columns"]) {
    const at = next[other].indexOf(field);
    if (at >= 0 && before !== undefined) next[other][at] = before;
    else if (at >= 0 && next[other].length > 1) next[other].splice(at, 1);
    else if (at >= 0) return view;
  }
  if (field < 0) next[side].splice(level, 1);
  else next[side][Math.min(level, next[side].length)] = field;
  return next;
}

function start() {
  const page = JSON.parse(document.getElementById("page").textContent);
  const {fields, constants} = page;
  const main = document.querySelector("main"), dialog = document.querySelector("dialog");
  const cells = [...main.querySelectorAll("figure")].map((el) => ({
    el, id: el.dataset.id, done: el.classList.contains("done"),
    v: el.dataset.v === "" ? [] : el.dataset.v.split(",").map(Number),
  }));
  const byElement = new Map(cells.map((cell) => [cell.el, cell]));
  let view, places = new Map(), parts = [], tables = [], shown = null, sections = [], fitting = [];

  const make = (name, words, classes) => {
    const el = document.createElement(name);
    if (words !== undefined) el.textContent = words;
    if (classes) el.className = classes;
    return el;
  };
  const words = (field, number) => fields[field].values[number];
  const clamp = (field, number) => {
    const el = make("span", words(field, number), "clamp");
    el.title = fields[field].whole[number];
    return el;
  };

  // Runs of keys that share their outer value: [first, stop).
  const groups = (keys) => {
    const found = [];
    keys.forEach((key, n) => {
      const last = found.at(-1);
      if (last && key.length > 1 && keys[n - 1][0] === key[0]) last[1] = n + 1;
      else if (!last || key.length > 1) found.push([n, n + 1]);
      else last[1] = n + 1;
    });
    return found;
  };

  function head(section) {
    const thead = make("thead"), names = make("tr"), two = view.columns.length > 1;
    const starts = new Set(groups(section.columns).map(([first]) => first));
    view.rows.forEach((field, level) => {
      const th = make("th", fields[field].label, "field corner" + (level ? " inner" : ""));
      th.rowSpan = two ? 3 : 2;
      names.append(th);
    });
    const name = make("th", view.columns.map((field) => fields[field].label).join(" / "), "field column");
    name.colSpan = section.columns.length;
    name.style.maxWidth = "none";
    names.append(name);
    thead.append(names);
    if (two) {
      const outer = make("tr");
      for (const [first, stop] of groups(section.columns)) {
        const th = make("th", words(view.columns[0], section.columns[first][0]), "outer" + (first ? " group" : ""));
        th.colSpan = stop - first;
        outer.append(th);
      }
      thead.append(outer);
    }
    const inner = make("tr");
    section.columns.forEach((column, n) => {
      const th = make("th", undefined, "column" + (two && n && starts.has(n) ? " group" : ""));
      th.append(clamp(view.columns.at(-1), column.at(-1)));
      inner.append(th);
    });
    thead.append(inner);
    return thead;
  }

  function body(section, number) {
    const tbody = make("tbody"), two = view.rows.length > 1;
    const firsts = new Map(groups(section.rows).map(([first, stop]) => [first, stop - first]));
    const columnStarts = new Set(groups(section.columns).map(([first]) => first));
    section.rows.forEach((row, r) => {
      const tr = make("tr", undefined, two && r && firsts.has(r) ? "first" : "");
      if (two && firsts.has(r)) {
        const th = make("th");
        th.rowSpan = firsts.get(r);
        th.append(clamp(view.rows[0], row[0]));
        tr.append(th);
      }
      const th = make("th", undefined, two ? "inner" : "");
      th.append(clamp(view.rows.at(-1), row.at(-1)));
      tr.append(th);
      section.columns.forEach((column, c) => {
        const td = make("td", undefined, view.columns.length > 1 && c && columnStarts.has(c) ? "group" : "");
        const cell = section.at.get(row.join() + "|" + column.join());
        if (cell) {
          td.append(cell.el);
          places.set(cell.el, [number, r, c]);
        } else {
          const hole = make("figure", undefined, "hole"), note = make("div", page.no_job, "note");
          hole.append(note);
          td.append(hole);
        }
        tr.append(td);
      });
      tbody.append(tr);
    });
    return tbody;
  }

  // How many columns of a section the window has room for beside the labels.
  function columnsFitting(section) {
    if (!view.wrap) return Infinity;
    const gaps = view.columns.length > 1 ? 18 * groups(section.columns).length / section.columns.length : 0;
    const label = matchMedia("(max-width: 760px)").matches ? 110 : 200;
    const room = document.documentElement.clientWidth - 48 - label * view.rows.length;
    return Math.max(1, Math.floor(room / (view.cell + 12 + gaps)));
  }

  function drawTables() {
    const drawn = document.createDocumentFragment();
    sections = pivot(cells, fields.length, view.rows, view.columns);
    fitting = sections.map(columnsFitting);
    sections.forEach((section, number) => {
      const title = section.fields.map((field, n) => fields[field].said[section.values[n]]);
      if (title.length) drawn.append(make("h2", title.join("  ·  ")));
      for (const strip of strips(section, fitting[number])) {
        const table = make("table", undefined, strip === section ? "" : "strip");
        table.append(head(strip), body(strip, parts.length));
        drawn.append(table);
        parts.push(number);
        tables.push(strip.rows.map((row) => strip.columns.map(
          (column) => strip.at.get(row.join() + "|" + column.join())?.el)));
      }
    });
    main.replaceChildren(drawn);
  }

  function drawList() {
    const list = make("div", undefined, "list"), found = listed(cells);
    found.forEach((cell, n) => {
      const item = make("div");
      item.append(cell.el, ...page.captions.map((field) => {
        const said = make("p", fields[field].said[cell.v[field]]);
        said.title = fields[field].whole[cell.v[field]];
        return said;
      }));
      list.append(item);
      places.set(cell.el, [0, 0, n]);
    });
    parts = [0];
    tables = [[found.map((cell) => cell.el)]];
    main.replaceChildren(list);
  }

  function render() {
    places = new Map();
    parts = [];
    tables = [];
    if (view.rows.length) drawTables();
    else drawList();
    const root = document.documentElement;
    root.style.setProperty("--cell", view.cell + "px");
    if (view.theme) root.dataset.theme = view.theme;
    else delete root.dataset.theme;
    document.body.classList.toggle("plain", view.plain);
    for (const {el} of cells) {
      const share = Number(el.style.getPropertyValue("--share") || 1);
      for (const img of el.querySelectorAll("img")) markEnlarged(img, view.cell * share);
    }
    fillBar();
  }

  function markEnlarged(img, drawn) {
    img.classList.toggle("enlarged", isEnlarged(drawn, Number(img.getAttribute("width"))));
  }

  function markOpened() {
    for (const img of dialog.querySelectorAll(".pictures img")) {
      const width = Number(img.getAttribute("width")), height = Number(img.getAttribute("height"));
      markEnlarged(img, width * Math.min(img.clientWidth / width, img.clientHeight / height));
    }
  }

  function change(next) {
    view = next;
    history.replaceState(null, "", writeAddress(view, fields));
    render();
  }

  function fillBar() {
    for (const select of document.querySelectorAll(".bar select")) {
      const {side} = select.dataset, level = Number(select.dataset.level);
      select.replaceChildren();
      const list = !view.rows.length;
      if (level || list || side === "rows") select.add(new Option(!level && side === "rows" ? "– (list)" : "–", "-1"));
      select.disabled = list && level > 0;
      fields.forEach((field, n) => select.add(new Option(field.label, String(n))));
      select.value = String(view[side][level] ?? -1);
    }
    document.getElementById("wrap").checked = view.wrap;
    document.getElementById("wrap").disabled = !view.rows.length;
    document.getElementById("size").value = String(view.cell);
    const diff = document.getElementById("diff");
    if (diff) diff.checked = !view.plain;
  }

  function open(el) {
    shown = el;
    const cell = byElement.get(el), pictures = dialog.querySelector(".pictures");
    pictures.replaceChildren(...[...el.children].map((child) => child.cloneNode(true)).filter(
      (child) => !child.classList.contains("mean")));
    dialog.querySelector("pre").textContent = recipe(cell, fields, constants, page.order);
    dialog.querySelector(".state").textContent = el.querySelector(".mean")?.textContent ?? "";
    dialog.querySelector(".id").textContent = cell.id;
    if (!dialog.open) dialog.showModal();
    markOpened();
  }

  // The next figure in a direction, over holes; to the right of a strip is the next one.
  function neighbour(el, down, right) {
    let [number, r, c] = places.get(el) ?? [];
    if (number === undefined) return null;
    if (!view.rows.length) {
      const [row] = tables[0], top = row[0].offsetTop, line = row.findIndex((other) => other.offsetTop > top);
      return row[c + right + down * (line < 0 ? row.length : line)] ?? null;
    }
    for (;;) {
      r += down;
      c += right;
      const table = tables[number];
      if (down && (r < 0 || r >= table.length)) {
        number += down;
        if (!tables[number]) return null;
        r = down > 0 ? 0 : tables[number].length - 1;
      }
      let row = tables[number][r];
      if (right && (c < 0 || c >= row.length)) {
        if (parts[number + right] !== parts[number]) return null;
        number += right;
        row = tables[number][r];
        c = right > 0 ? 0 : row.length - 1;
      }
      if (row[c]) return row[c];
    }
  }

  async function copy(button) {
    const text = dialog.querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // some browsers give no clipboard to a file
      const area = make("textarea", text);
      dialog.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1200);
  }

  const arrows = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  document.addEventListener("keydown", (event) => {
    const at = dialog.open ? shown : document.activeElement;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("select, input")) return;
    if (arrows[event.key] && places.has(at)) {
      const next = neighbour(at, ...arrows[event.key]);
      event.preventDefault();
      if (next && dialog.open) open(next);
      else if (next) next.focus();
    } else if (event.key === "Enter" && places.has(at) && !dialog.open) open(at);
    else if (event.key === "c" && dialog.open) copy(dialog.querySelector(".copy"));
    else if ("+=-".includes(event.key) && !dialog.open) {
      change({...view, cell: Math.round(Math.min(1024, Math.max(32, view.cell * (event.key === "-" ? 0.8 : 1.25))))});
    }
  });
  main.addEventListener("click", (event) => {
    const figure = event.target.closest("figure");
    if (byElement.has(figure)) open(figure);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => shown?.focus());
  dialog.querySelector(".copy").addEventListener("click", (event) => copy(event.target));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  for (const select of document.querySelectorAll(".bar select")) {
    select.addEventListener("change", () => change(
      choose(view, select.dataset.side, Number(select.dataset.level), Number(select.value), fields.length)));
  }
  document.getElementById("wrap").addEventListener("change", (event) => {
    change({...view, wrap: event.target.checked});
  });
  document.getElementById("size").addEventListener("input", (event) => {
    change({...view, cell: Number(event.target.value)});
  });
  document.getElementById("theme").addEventListener("click", () => {
    const dark = view.theme ? view.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    change({...view, theme: dark ? "light" : "dark"});
  });
  document.getElementById("diff")?.addEventListener("change", (event) => {
    change({...view, plain: !event.target.checked});
  });
  addEventListener("hashchange", () => {
    view = readAddress(location.hash, fields, page.view);
    render();
  });
  addEventListener("resize", () => {
    if (dialog.open) markOpened();
    if (view.rows.length && sections.map(columnsFitting).join() !== fitting.join()) render();
  });
  new ResizeObserver(([bar]) => document.documentElement.style.setProperty(
    "--bar", bar.target.offsetHeight + "px")).observe(document.querySelector(".bar"));
  view = readAddress(location.hash, fields, page.view);
  render();
}

if (typeof document === "undefined") module.exports = {pivot, strips, listed, isEnlarged, recipe, readAddress, writeAddress, choose};
else start();

// The page: what the pointer and the keys do, what is said of a change, exports, and news from a server.

const find = (id) => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
const model = new Model(data);
const canvas = find("canvas");
const tip = find("tip");
const view = new View(model);
const OUTCOMES = ["succeeded", "failed", "preempted", "cancelled", "superseded"];
let colours = {};
let waiting = false;
// Where the page itself put the scroll bar last.
let placed = 0;

// Colours come from the style sheet, so that dark mode and print are decided in one place.
const readColours = () => {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "ink", "muted", "grid", "stripe", "chosen", "accent", ...OUTCOMES, ...data.states, ...data.states.map((state) => `on-${state}`)];
  colours = Object.fromEntries(names.map((name) => [`--${name}`, style.getPropertyValue(`--${name}`).trim()]));
};

const draw = () => {
  waiting = false;
  const ratio = window.devicePixelRatio || 1;
  view.width = canvas.clientWidth;
  view.height = canvas.clientHeight;
  canvas.width = Math.round(view.width * ratio);
  canvas.height = Math.round(view.height * ratio);
  view.keepScroll();
  view.draw(new CanvasPainter(canvas.getContext("2d"), view.width, view.height, ratio), colours);
  const space = view.height - AXIS;
  const bar = find("bar");
  bar.hidden = view.total <= space;
  find("rows").style.height = `${view.total}px`;
  if (Math.abs(bar.scrollTop - view.scroll) >= 1) bar.scrollTop = view.scroll;
  placed = bar.scrollTop;
};

const redraw = () => {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
};

// Words.

const summarise = () => {
  const { changes, slices, runs } = model;
  const count = (number, what) => `${number.toLocaleString()} ${what}${number === 1 ? "" : "s"}`;
  const parts = [count(slices.length, "slice"), count(model.lost(), "preemption"), count(runs.size, "run"), count(changes.at.length, "change")];
  if (changes.at.length) parts.push(span(model.now - model.first));
  if (model.dropped) parts.push(`${count(model.dropped, "older change")} forgotten`);
  find("summary").textContent = parts.join(" \u00b7 ");
  find("empty").hidden = changes.at.length > 0 && view.rows.length > 0;
  find("empty").textContent = changes.at.length ? "No slice or run matches the filters." : "Nothing has happened yet: the history is empty.";
};

const sentence = (change) => {
  const text = (field) => model.text(field, change);
  const moved = text("to") === text("from") ? "note" : `${text("from") || "(new)"} \u2192 ${text("to") || "(gone)"}`;
  const lines = [`${clock(model.changes.at[change], { date: true })}  ${text("reason")}`, model.reasons[text("reason")] ?? ""];
  if (text("detail")) lines.push(text("detail"));
  if (text("cause")) lines.push(`because of ${text("cause")}`);
  return { title: `${text("key")}  ${moved}`, lines: lines.filter(Boolean) };
};

const attemptSentence = (attempt) => ({
  title: `${attempt.run}, attempt ${attempt.number}: ${attempt.outcome ?? "running"}`,
  lines: [
    `${clock(attempt.began, { date: true })}, ${span((attempt.ended ?? model.now) - attempt.began)}, on ${attempt.slices.join(", ")}`,
    attempt.detail,
    ...attempt.hosts.filter((host) => host[1] && host[1] !== "returned").slice(0, 6).map((host) => `${host[0]} ${host[1]}${host[2] ? `: ${host[2]}` : ""}`),
  ].filter(Boolean),
});

const showTip = ({ title, lines }, x, y) => {
  const head = document.createElement("b");
  head.textContent = title;
  tip.replaceChildren(head, document.createTextNode(lines.join("\n")));
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(x + 14, view.width - tip.offsetWidth - 8))}px`;
  const below = y + 18;
  tip.style.top = `${below + tip.offsetHeight < view.height ? below : Math.max(4, y - tip.offsetHeight - 12)}px`;
};

const meant = (row, x) => {
  const change = view.changeAt(row, x);
  if (change >= 0) return { change, words: sentence(change) };
  if (!row.run) return null;
  const time = view.time(x);
  const attempt = [...row.run.attempts.values()].find((one) => one.began <= time && time <= (one.ended ?? model.now));
  return attempt ? { change: -1, words: attemptSentence(attempt) } : null;
};

// Choosing.

const tell = (row) => {
  const about = [];
  if (row?.record?.replaces) about.push(`replaces ${row.record.replaces}`);
  if (row && model.replacedBy.has(row.key)) about.push(`replaced by ${model.replacedBy.get(row.key)}`);
  const most = 1000;
  const story = row ? model.story(row) : [];
  if (story.length > most) about.push(`the last ${most} of ${story.length} changes`);
  find("chosen").textContent = row ? row.key : "Story";
  find("about").textContent = row ? about.join(" \u00b7 ") : "Choose a row to read what happened to it.";
  const told = `${row?.key} ${story.length}`;
  const list = find("story");
  if (list.dataset.told === told) return;
  list.dataset.told = told;
  list.replaceChildren(
    ...story.slice(-most).map((change) => {
      const item = document.createElement("li");
      const { title, lines } = sentence(change);
      item.textContent = `${clock(model.changes.at[change])}  ${title}  (${model.text("reason", change)}) ${model.text("detail", change)}`;
      item.title = lines.join("\n");
      item.dataset.change = change;
      item.classList.toggle("note", model.text("to", change) === model.text("from", change));
      item.classList.toggle("loss", model.text("to", change) === "preempted");
      return item;
    }),
  );
};

// Show in the story which change is chosen; return its line.
const mark = () => {
  let found = null;
  for (const item of find("story").children) {
    const chosen = Number(item.dataset.change) === view.change;
    item.classList.toggle("chosen", chosen);
    if (chosen) found = item;
  }
  return found;
};

const choose = (row, change = -1) => {
  view.chosen = row ? row.key : null;
  view.change = change;
  tell(row);
  const line = mark();
  // Not scrollIntoView: that would move the whole page, too.
  if (line) find("story").scrollTop = line.offsetTop - find("story").offsetTop - 40;
  redraw();
};

const chosenRow = () => view.rows.find((row) => row.key === view.chosen);

const say = (row, change) => {
  const { title, lines } = sentence(change);
  find("said").textContent = `${title}. ${lines.join(". ")}`;
  const x = view.x(model.changes.at[change]);
  showTip({ title, lines }, x, AXIS + row.top - view.scroll + row.height / 2);
};

const stepChange = (direction) => {
  const row = chosenRow() ?? view.rows[0];
  if (!row) return;
  const story = row.run ? row.run.changes : row.record.changes;
  if (!story.length) return;
  const now = story.indexOf(view.change);
  const next = story[now < 0 ? (direction > 0 ? 0 : story.length - 1) : Math.max(0, Math.min(story.length - 1, now + direction))];
  const at = model.changes.at[next];
  if (at < view.from || at > view.to) view.center(at);
  view.reach(row.index);
  choose(row, next);
  say(row, next);
};

const stepRow = (direction) => {
  if (!view.rows.length) return;
  const now = chosenRow()?.index ?? (direction > 0 ? -1 : view.rows.length);
  const row = view.rows[Math.max(0, Math.min(view.rows.length - 1, now + direction))];
  view.reach(row.index);
  choose(row);
  tip.hidden = true;
  find("said").textContent = `${row.key}, ${(row.run ?? row.record).changes.length} changes`;
};

const toggleHosts = (row) => {
  if (row?.kind !== "slice") return;
  view.open.has(row.key) ? view.open.delete(row.key) : view.open.add(row.key);
  view.arrange();
  redraw();
};

// Keys and pointer.

const KEYS = {
  ArrowLeft: () => view.move(-0.15),
  ArrowRight: () => view.move(0.15),
  ArrowUp: () => stepRow(-1),
  ArrowDown: () => stepRow(1),
  "+": () => view.zoom(0.7),
  "=": () => view.zoom(0.7),
  "-": () => view.zoom(1 / 0.7),
  0: () => view.showAll(),
  Home: () => view.center(model.first),
  End: () => view.center(model.now),
  ",": () => stepChange(-1),
  ".": () => stepChange(1),
  Enter: () => toggleHosts(chosenRow()),
  Escape: () => { tip.hidden = true; choose(null); },
};

canvas.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
  redraw();
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.shiftKey || event.offsetX < GUTTER) view.scroll += event.deltaY || event.deltaX;
  else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) view.move(event.deltaX / (view.width - GUTTER));
  else view.zoom(Math.exp(event.deltaY * 0.0016), view.time(event.offsetX));
  tip.hidden = true;
  redraw();
}, { passive: false });

let held = null;

canvas.addEventListener("pointerdown", (event) => {
  held = { x: event.offsetX, y: event.offsetY, moved: false };
  canvas.setPointerCapture(event.pointerId);
});

canvas.addEventListener("pointermove", (event) => {
  if (held) {
    const [across, down] = [event.offsetX - held.x, event.offsetY - held.y];
    if (!held.moved && Math.hypot(across, down) < 4) return;
    canvas.classList.add("dragged");
    view.move(-across / (view.width - GUTTER));
    view.scroll -= down;
    held = { x: event.offsetX, y: event.offsetY, moved: true };
    tip.hidden = true;
    redraw();
    return;
  }
  const row = view.rows[view.at(event.offsetY)];
  const found = row && event.offsetX >= GUTTER ? meant(row, event.offsetX) : null;
  if (found) showTip(found.words, event.offsetX, event.offsetY);
  else tip.hidden = true;
});

canvas.addEventListener("pointerup", (event) => {
  const moved = held?.moved;
  held = null;
  canvas.classList.remove("dragged");
  if (moved) return;
  const row = view.rows[view.at(event.offsetY)];
  if (row && event.offsetX < GUTTER) toggleHosts(row);
  choose(row ?? null, row ? meant(row, event.offsetX)?.change ?? -1 : -1);
});

canvas.addEventListener("pointercancel", () => { held = null; });
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

find("bar").addEventListener("scroll", () => {
  // Told later of what the page did itself: it may have gone on since.
  if (find("bar").scrollTop === placed) return;
  view.scroll = find("bar").scrollTop;
  redraw();
});

// Controls.

const refilter = () => {
  view.filter = { text: find("filter").value, reason: find("reason").value, state: find("state").value };
  if (view.allOpen !== find("hosts").checked) view.open.clear();
  view.allOpen = find("hosts").checked;
  view.arrange();
  summarise();
  redraw();
};

for (const id of ["filter", "reason", "state", "hosts"]) find(id).addEventListener("input", refilter);
find("controls").addEventListener("submit", (event) => event.preventDefault());
find("in").addEventListener("click", () => { view.zoom(0.6); redraw(); });
find("out").addEventListener("click", () => { view.zoom(1 / 0.6); redraw(); });
find("fit").addEventListener("click", () => { view.showAll(); redraw(); });

const download = (blob, ending) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${model.title.replace(/[^\w.-]+/g, "-") || "timeline"}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

const svgText = () => {
  const painter = new SvgPainter(view.width, view.height);
  view.draw(painter, colours);
  return painter.toString();
};

find("svg").addEventListener("click", () => download(new Blob([svgText()], { type: "image/svg+xml" }), "svg"));
find("png").addEventListener("click", () => canvas.toBlob((blob) => download(blob, "png")));

const fillReasons = () => {
  const known = new Set([...find("reason").options].map((option) => option.value));
  const used = [...new Set(model.changes.reason.map((number) => model.texts[number]))].filter((reason) => !known.has(reason)).sort();
  for (const reason of used) find("reason").add(new Option(reason, reason));
};

const legend = () => {
  const add = (patch, text) => {
    const item = document.createElement("li");
    item.append(patch, text);
    find("legend").append(item);
  };
  const patch = (text = "", style = {}) => {
    const one = document.createElement("i");
    one.textContent = text;
    Object.assign(one.style, style);
    return one;
  };
  for (const state of data.states) {
    find("state").add(new Option(state, state));
    add(patch(short(state), { background: `var(--${state})`, color: `var(--on-${state})` }), state);
  }
  add(patch("\u25bc", { color: "var(--preempted)" }), "a loss or notice, and its reason");
  add(patch("\u25b2"), "a note");
  add(patch("\u2506"), "to what replaced it");
  for (const outcome of ["running", ...OUTCOMES]) add(patch("", { border: `2px solid var(--${outcome})` }), outcome === "running" ? "attempt: running" : outcome);
};

// News.

const takeNews = (news) => {
  const followed = view.all;
  model.append(news);
  view.arrange();
  if (followed) view.showAll();
  fillReasons();
  summarise();
  const row = chosenRow();
  if (row) {
    // The reader goes on where he is.
    const read = find("story").scrollTop;
    tell(row);
    mark();
    find("story").scrollTop = read;
  }
  redraw();
};

// So that a page which never fits what it is told does not reload without end.
const justReloaded = () => performance.getEntriesByType("navigation")[0]?.type === "reload" && performance.now() < 10000;

const follow = async () => {
  let pause = 500;
  for (;;) {
    try {
      const answer = await fetch(`changes?since=${model.seq}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const news = await answer.json();
      if (news.server !== data.server || !model.followedBy(news)) {
        if (justReloaded()) throw new Error("the history is another one");
        location.reload();
        return;
      }
      takeNews(news);
      pause = 500;
      find("live").textContent = "live";
      find("live").classList.remove("lost");
    } catch (error) {
      pause = Math.min(15000, pause * 2);
      find("live").textContent = `no answer, trying again in ${Math.round(pause / 1000)} s`;
      find("live").title = String(error);
      find("live").classList.add("lost");
    }
    await new Promise((done) => { setTimeout(done, pause); });
  }
};

// Beginning.

find("title").textContent = model.title;
legend();
fillReasons();
readColours();
tell(null);
summarise();
new ResizeObserver(redraw).observe(find("stage"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
// On paper all rows are drawn, sheet by sheet, whatever the window shows; too many would be a book.
const SHEET = { width: 1000, height: 1200, most: 20 };

const sheets = () => {
  const painted = [];
  const kept = { width: view.width, height: view.height, scroll: view.scroll };
  view.width = SHEET.width;
  let next = 0;
  while (next < view.rows.length && painted.length < SHEET.most) {
    view.scroll = view.rows[next].top;
    const end = view.rows.findIndex((row) => row.top + row.height > view.scroll + SHEET.height);
    next = end < 0 ? view.rows.length : end;
    view.height = AXIS + (end < 0 ? view.total : view.rows[end].top) - view.scroll;
    const painter = new SvgPainter(view.width, view.height);
    view.draw(painter, colours);
    painted.push(painter.toString());
  }
  Object.assign(view, kept);
  return [painted, view.rows.length - next];
};

addEventListener("beforeprint", () => {
  document.documentElement.classList.add("printed");
  readColours();
  const [painted, left] = sheets();
  find("sheets").innerHTML = painted.join("");
  const said = [`From ${clock(view.from, { date: true })} to ${clock(view.to, { date: true })}`];
  if (!view.all) said.push("what is before and after is left out");
  if (left) said.push(`${left} more rows are left out`);
  if (Object.values(view.filter).some(Boolean)) said.push("rows that the filters hide are left out");
  find("printed").textContent = `${said.join("; ")}.`;
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printed");
  find("sheets").replaceChildren();
  readColours();
  draw();
});
draw();
if (data.server) {
  find("live").hidden = false;
  find("live").textContent = "live";
  follow();
}

// For tests, which cannot see a canvas.
window.sliceform = {
  stats: () => ({ rows: view.rows.map((row) => row.key), drawn: view.drawn, from: view.from, to: view.to, chosen: view.chosen, change: view.change, changes: model.changes.at.length }),
  place: (key, time) => {
    const row = view.rows.find((one) => one.key === key);
    return [view.x(time), AXIS + row.top - view.scroll + row.height / 2];
  },
  svg: svgText,
};

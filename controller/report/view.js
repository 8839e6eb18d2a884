// What is seen of the model: a stretch of time, the rows that the filters leave, and how they are drawn.

const GUTTER = 132;
const AXIS = 26;
const ROW = { run: 24, slice: 22, host: 14 };
const DAY = 864e5;
const short = (state) => state.slice(0, 2).toUpperCase();
// Milliseconds between two lines of the axis.
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 18e5, 36e5, 72e5, 144e5, 216e5, 432e5, DAY, 2 * DAY, 7 * DAY, 28 * DAY, 364 * DAY];

class View {
  constructor(model) {
    this.model = model;
    this.filter = { text: "", reason: "", state: "" };
    this.open = new Set();
    this.allOpen = false;
    this.scroll = 0;
    this.chosen = null;
    this.change = -1;
    this.drawn = 0;
    this.arrange();
    this.showAll();
  }

  // Time.

  showAll() {
    const { first } = this.model;
    const last = Math.max(this.model.now, first + 1);
    const margin = (last - first) * 0.02 + 1;
    this.from = first - margin;
    this.to = last + margin;
    this.all = true;
  }

  zoom(factor, around = (this.from + this.to) / 2) {
    const least = 5;
    const most = (this.model.now - this.model.first) * 4 + 10000;
    const width = Math.min(most, Math.max(least, (this.to - this.from) * factor));
    const share = (around - this.from) / (this.to - this.from);
    this.from = around - width * share;
    this.to = this.from + width;
    this.all = false;
  }

  move(share) {
    const width = this.to - this.from;
    this.from += width * share;
    this.to += width * share;
    this.all = false;
  }

  center(time) {
    const half = (this.to - this.from) / 2;
    this.from = time - half;
    this.to = time + half;
    this.all = false;
  }

  x(time) {
    return GUTTER + ((time - this.from) / (this.to - this.from)) * (this.width - GUTTER);
  }

  time(x) {
    return this.from + ((x - GUTTER) / (this.width - GUTTER)) * (this.to - this.from);
  }

  // Rows.

  arrange() {
    const words = this.filter.text.toLowerCase().split(/[\s,]+/).filter(Boolean);
    const wanted = (key) => !words.length || words.some((word) => key.toLowerCase().includes(word));
    const { reason, state } = this.filter;
    this.rows = [];
    let top = 0;
    const add = (row, height) => {
      this.rows.push({ ...row, top, height, index: this.rows.length });
      top += height;
    };
    for (const run of this.model.runs.values()) {
      if (!state && wanted(run.key) && (!reason || run.changes.some((change) => this.model.text("reason", change) === reason))) {
        add({ kind: "run", key: run.key, run }, ROW.run);
      }
    }
    for (const slice of this.model.slices) {
      if (!wanted(slice.key) || (reason && !this.model.had(slice, "reason", reason)) || (state && !this.model.had(slice, "to", state))) continue;
      add({ kind: "slice", key: slice.key, record: slice }, ROW.slice);
      if (this.allOpen !== this.open.has(slice.key)) {
        for (const host of slice.hosts) add({ kind: "host", key: host.key, record: host }, ROW.host);
      }
    }
    this.total = top;
  }

  at(y) {
    const inside = y - AXIS + this.scroll;
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].top + this.rows[middle].height <= inside) low = middle + 1;
      else high = middle;
    }
    return y >= AXIS && low < this.rows.length ? low : -1;
  }

  reach(index) {
    const row = this.rows[index];
    const space = this.height - AXIS;
    if (row.top < this.scroll) this.scroll = row.top;
    if (row.top + row.height > this.scroll + space) this.scroll = row.top + row.height - space;
  }

  keepScroll() {
    this.scroll = Math.max(0, Math.min(this.scroll, this.total - (this.height - AXIS)));
  }

  // The change that is meant by a point of a row: a note close by, else the bar under it.
  changeAt(row, x) {
    const near = 5;
    const time = this.time(x);
    const changes = row.run ? row.run.changes : row.record.changes;
    let best = -1;
    for (const change of changes) {
      const distance = Math.abs(this.x(this.model.changes.at[change]) - x);
      if (distance <= near && (best < 0 || distance <= Math.abs(this.x(this.model.changes.at[best]) - x))) best = change;
    }
    if (best >= 0 || row.run) return best;
    for (const [from, to, , change] of this.model.bars(row.record, time, time)) if (from <= time && time < to) best = change;
    return best;
  }

  // Drawing.

  draw(painter, colours) {
    this.drawn = 0;
    painter.rect(0, 0, this.width, this.height, colours["--paper"]);
    const shown = this.rows.filter((row) => row.top + row.height > this.scroll && row.top < this.scroll + this.height - AXIS);
    painter.clip(0, AXIS, this.width, this.height - AXIS, () => {
      for (const row of shown) this.stripe(painter, colours, row);
      this.grid(painter, colours, false);
      painter.clip(GUTTER, AXIS, this.width - GUTTER, this.height - AXIS, () => {
        for (const row of shown) row.run ? this.run(painter, colours, row) : this.record(painter, colours, row);
        this.lineage(painter, colours, shown);
      });
      for (const row of shown) this.label(painter, colours, row);
    });
    this.grid(painter, colours, true);
    painter.line([[GUTTER, 0], [GUTTER, this.height]], colours["--grid"]);
  }

  y(row) {
    return AXIS + row.top - this.scroll;
  }

  stripe(painter, colours, row) {
    const fill = row.key === this.chosen ? "--chosen" : row.index % 2 ? "--stripe" : "";
    if (fill) painter.rect(0, this.y(row), this.width, row.height, colours[fill]);
  }

  label(painter, colours, row) {
    const closed = row.kind === "slice" && row.record.hosts.length ? (this.allOpen !== this.open.has(row.key) ? "\u25be " : "\u25b8 ") : "";
    const text = row.kind === "host" ? `host ${row.key.slice(row.key.lastIndexOf("/") + 1)}` : closed + row.key;
    const cut = text.length > 19 ? `${text.slice(0, 18)}\u2026` : text;
    const colour = row.kind === "host" ? "--muted" : "--ink";
    painter.text(cut, row.kind === "host" ? 28 : 10, this.y(row) + row.height / 2, colours[colour], { size: row.kind === "host" ? 10 : 12, bold: row.kind === "run" });
  }

  record(painter, colours, row) {
    const y = this.y(row) + (row.kind === "host" ? 2 : 3);
    const height = row.height - (row.kind === "host" ? 4 : 6);
    const losses = [];
    let filled = -1;
    for (const [from, to, state, change] of this.model.bars(row.record, this.from, this.to)) {
      const left = Math.max(GUTTER - 2, this.x(from));
      const right = Math.min(this.width + 2, this.x(to));
      if (state === "preempted") {
        losses.push({ left, right, change, after: right });
        continue;
      }
      if (state === "draining" && losses.length) losses.at(-1).after = right;
      // What is narrower than a point of the screen is drawn once.
      if (right - left < 0.5 && Math.floor(left) === filled) continue;
      filled = Math.floor(left);
      this.bar(painter, colours, row, state, change, [left, y, Math.max(1, right - left), height]);
    }
    // Losses last: they are wider than they lasted, and the next bar would cover them.
    for (const { left, right, change, after } of losses) {
      this.bar(painter, colours, row, "preempted", change, [left, y, Math.max(3, right - left), height]);
      if (row.kind === "slice") this.cause(painter, colours, change, left, y, after);
    }
    this.notes(painter, colours, row, y + height);
  }

  bar(painter, colours, row, state, change, [left, y, width, height]) {
    painter.rect(left, y, width, height, colours[`--${state}`]);
    this.drawn += 1;
    if (row.kind === "slice" && width >= 22) {
      painter.text(width > 64 ? state : short(state), left + 5, y + height / 2 + 0.5, colours[`--on-${state}`], { size: 11 });
    }
    if (change >= 0 && change === this.change) painter.line([[left, y - 1], [left + width, y - 1], [left + width, y + height + 1], [left, y + height + 1], [left, y - 1]], colours["--ink"], 2);
  }

  // The arrow of a loss, and its reason to the right of what came after it, or over that if there is no room.
  cause(painter, colours, change, left, y, after) {
    painter.shape([[left - 5, y - 4], [left + 5, y - 4], [left, y + 4]], colours["--preempted"]);
    if (change < 0) return;
    const text = this.model.text("reason", change);
    const beside = Math.max(left + 6, after) + 4;
    const x = Math.min(beside, this.width - 6 * text.length - 4);
    painter.text(text, x, y + 8, colours[x < beside ? "--on-draining" : "--ink"], { size: 10, bold: true });
  }

  notes(painter, colours, row, bottom) {
    for (const change of row.record.changes) {
      if (this.model.text("to", change) !== this.model.text("from", change)) continue;
      const x = this.x(this.model.changes.at[change]);
      if (x >= GUTTER && x <= this.width) painter.shape([[x - 3, bottom + 2], [x + 3, bottom + 2], [x, bottom - 4]], colours["--ink"]);
    }
  }

  run(painter, colours, row) {
    const y = this.y(row) + 4;
    const height = row.height - 8;
    for (const attempt of row.run.attempts.values()) {
      const left = Math.max(GUTTER - 2, this.x(attempt.began));
      const right = Math.min(this.width + 2, this.x(attempt.ended ?? this.model.now));
      if (right < GUTTER || left > this.width) continue;
      const colour = colours[`--${attempt.outcome ?? "running"}`];
      painter.line([[left, y], [right, y], [right, y + height], [left, y + height], [left, y]], colour, 2);
      painter.rect(left, y, 4, height, colour);
      this.drawn += 1;
      const text = `${attempt.number}: ${attempt.outcome ?? "running"}, ${attempt.slices.length} slice${attempt.slices.length === 1 ? "" : "s"}`;
      const words = right - left > 150 ? text : right - left > 90 ? text.split(",")[0] : String(attempt.number);
      if (right - left > 26) painter.clip(left, y, Math.max(0, right - left - 4), height, () => painter.text(words, left + 9, y + height / 2 + 0.5, colours["--ink"], { size: 11 }));
    }
  }

  // From the loss of a slice to the one that replaced it.
  lineage(painter, colours, shown) {
    const places = new Map(shown.filter((row) => row.kind === "slice").map((row) => [row.key, row]));
    for (const [key, row] of places) {
      const old = places.get(row.record.replaces);
      if (!old || !row.record.bars.length) continue;
      const x = this.x(this.model.changes.at[row.record.bars[0]]);
      if (x < GUTTER || x > this.width) continue;
      const above = this.y(old) + old.height - 3;
      const below = this.y(places.get(key)) + 3;
      painter.line([[x, above], [x, below]], colours["--ink"], 1.5, [3, 2]);
      painter.shape([[x - 4, below - 5], [x + 4, below - 5], [x, below]], colours["--ink"]);
    }
  }

  grid(painter, colours, head) {
    if (head) painter.rect(0, 0, this.width, AXIS, colours["--paper"]);
    const step = STEPS.find((one) => this.x(this.from + one) - this.x(this.from) >= 92) ?? STEPS.at(-1);
    // Lines stand at full hours and days of local time.
    const shift = (time) => new Date(time).getTimezoneOffset() * 60000;
    const first = shift(this.from);
    for (let local = Math.ceil((this.from - first) / step) * step; ; local += step) {
      // A day may be longer or shorter than another; an hour is not.
      const time = local + (step > 36e5 ? shift(local + first) : first);
      if (time > this.to) break;
      const x = this.x(time);
      if (x < GUTTER) continue;
      if (!head) painter.line([[x, AXIS], [x, this.height]], colours["--grid"]);
      else painter.text(View.mark(time, step), x, AXIS / 2, colours["--muted"], { size: 11, align: "center" });
    }
    if (head) {
      painter.text(clock(this.from, { millis: false, date: true }).slice(0, 10), 10, AXIS / 2, colours["--muted"], { size: 11 });
      painter.line([[0, AXIS], [this.width, AXIS]], colours["--grid"]);
    }
  }

  static mark(time, step) {
    const text = clock(time, { date: true });
    if (step >= DAY) return text.slice(0, 10);
    if (step < 1000) return text.slice(11);
    return text.slice(11, step < 60000 ? 19 : 16) === "00:00" ? text.slice(5, 10) : text.slice(11, step < 60000 ? 19 : 16);
  }
}

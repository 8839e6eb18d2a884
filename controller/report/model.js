// What happened, as records with their changes; grows when more comes.

class Model {
  constructor(data) {
    this.title = data.title;
    this.dropped = data.dropped;
    this.reasons = data.reasons;
    this.texts = [];
    this.numbers = new Map();
    // One array per field of a change; `at` in milliseconds since the epoch, `seq` the last number.
    this.changes = { at: [], kind: [], key: [], from: [], to: [], reason: [], detail: [], cause: [] };
    this.seq = 0;
    // Of all changes; a clock may have been set back in between.
    this.earliest = Infinity;
    this.latest = -Infinity;
    this.records = new Map();
    this.slices = [];
    this.runs = new Map();
    this.replacedBy = new Map();
    for (const [key, state] of Object.entries(data.base)) this.record(key).base = state;
    this.append(data);
  }

  append(data) {
    const numbers = data.texts.map((text) => this.number(text));
    let at = 0;
    data.at.forEach((delta, index) => {
      at += delta;
      this.earliest = Math.min(this.earliest, at);
      this.latest = Math.max(this.latest, at);
      const change = this.changes.at.length;
      this.changes.at.push(at);
      for (const field of ["kind", "key", "from", "to", "reason", "detail", "cause"]) {
        this.changes[field].push(numbers[data[field][index]]);
      }
      this.file(change, numbers[data.trigger[index]] !== 0);
    });
    this.seq = data.seq;
    for (const attempt of data.attempts) this.fileAttempt(attempt);
    this.now = Math.max(data.now ?? -Infinity, this.latest);
    if (!Number.isFinite(this.now)) this.now = Date.now();
  }

  // Whether news go on where this ends: none is missing, and they are of the same history.
  followedBy(news) {
    const last = this.changes.at.at(-1) ?? null;
    return news.seq === this.seq + news.at.length && (news.since === null || last === null || news.since === last);
  }

  number(text) {
    if (!this.numbers.has(text)) {
      this.numbers.set(text, this.texts.length);
      this.texts.push(text);
    }
    return this.numbers.get(text);
  }

  text(field, change) {
    return this.texts[this.changes[field][change]];
  }

  file(change, moved) {
    const [key, kind] = [this.text("key", change), this.text("kind", change)];
    if (kind === "fleet" || kind === "attempt") return;
    if (kind === "run") {
      this.run(key).changes.push(change);
      return;
    }
    const record = this.record(key);
    record.changes.push(change);
    if (!moved) return;
    record.bars.push(change);
    const cause = this.text("cause", change);
    if (record.slice === key && !this.text("from", change) && cause) {
      record.replaces = cause;
      this.replacedBy.set(cause, key);
    }
  }

  record(key) {
    let record = this.records.get(key);
    if (record) return record;
    const cut = key.lastIndexOf("/");
    const slice = cut < 0 ? key : key.slice(0, cut);
    record = { key, slice, changes: [], bars: [], base: "", hosts: [], replaces: "" };
    this.records.set(key, record);
    if (cut < 0) this.slices.push(record);
    else this.record(slice).hosts.push(record);
    return record;
  }

  run(key) {
    if (!this.runs.has(key)) this.runs.set(key, { key, changes: [], attempts: new Map() });
    return this.runs.get(key);
  }

  fileAttempt(attempt) {
    this.run(attempt.run).attempts.set(attempt.number, attempt);
  }

  get first() {
    return Math.min(this.earliest, this.now);
  }

  // The bars of a record that can be seen between two times: [from, to, state, change or -1 for what was before].
  *bars(record, from, to) {
    let [begin, state, cause] = [this.changes.at[0] ?? this.now, record.base, -1];
    for (const change of record.bars) {
      const end = this.changes.at[change];
      if (state && begin <= to && end >= from) yield [begin, end, state, cause];
      begin = end;
      state = this.text("to", change);
      cause = change;
    }
    if (state && begin <= to && this.now >= from) yield [begin, this.now, state, cause];
  }

  // Whether a slice, with its hosts, had such a change.
  had(record, field, text) {
    const number = this.numbers.get(text);
    if (number === undefined) return false;
    const own = (one) => one.changes.some((change) => this.changes[field][change] === number);
    return own(record) || record.hosts.some(own);
  }

  story(row) {
    const changes = row.run ? [...row.run.changes] : [...row.record.changes];
    if (row.record && row.record.slice === row.record.key) {
      for (const host of row.record.hosts) changes.push(...host.changes);
    }
    return changes.sort((one, other) => one - other);
  }

  lost() {
    const preempted = this.numbers.get("preempted");
    return this.slices.filter((slice) => slice.bars.some((change) => this.changes.to[change] === preempted)).length;
  }
}

const clock = (time, { millis = true, date = false } = {}) => {
  const moment = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  const day = date ? `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} ` : "";
  const rest = millis ? `.${String(Math.floor(moment.getMilliseconds())).padStart(3, "0")}` : "";
  return `${day}${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}${rest}`;
};

const span = (millis) => {
  const seconds = millis / 1000;
  if (seconds < 1) return `${Math.round(millis)} ms`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(1)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
};

// The status page: takes a snapshot of the process each second and writes it into the document. What is shown is
// always text, never markup, and a cell is touched only when it changes.

const rateSeconds = 10; // over which rates are taken
const staleMillis = 3500; // without a snapshot until the page says so
const heldSeconds = 5; // for which a transaction may hold readers back before that is worth a word; writers of transactions do it all the time
const againMillis = 5000; // until the stream is asked for again where the browser has given up

const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

// Numbers and times.

const wholeForm = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenthForm = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const unknown = "–";

const count = (n) => (n == null ? unknown : wholeForm.format(n));
const perSecond = (n) => (n == null ? unknown : n > 0 && n < 10 ? tenthForm.format(n) : wholeForm.format(n));

function duration(seconds) {
  if (seconds == null) return unknown;
  if (seconds === 0) return "0 s";
  if (seconds < 1) return `${seconds < 0.01 ? tenthForm.format(seconds * 1000) : wholeForm.format(seconds * 1000)} ms`;
  if (seconds < 10) return `${tenthForm.format(seconds)} s`;
  if (seconds < 120) return `${wholeForm.format(seconds)} s`;
  if (seconds < 7200) return `${wholeForm.format(seconds / 60)} min`;
  if (seconds < 172800) return `${wholeForm.format(seconds / 3600)} h`;
  return `${wholeForm.format(seconds / 86400)} d`;
}

function bytes(n) {
  if (n < 1024) return `${n} B`;
  return n < 1 << 20 ? `${wholeForm.format(n / 1024)} KiB` : `${tenthForm.format(n / (1 << 20))} MiB`;
}

const clock = (text) => new Date(text).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const dayAndClock = (text) => `${new Date(text).toLocaleDateString("sv")} ${clock(text)}`; // Swedes write 2026-11-30
const sum = (list, of) => list.reduce((total, one) => total + of(one), 0);
const largest = (list) => list.reduce((most, one) => (one != null && (most == null || one > most) ? one : most), null);

// fill writes rows into a table and keeps the elements that are there, so that focus, selection and the place of a
// screen reader stay. A cell is a text or {text, class, title}; the first of a row is its header.
function fill(table, rows, empty) {
  const body = table.tBodies[0];
  const columns = table.tHead.rows[0].cells;
  if (rows.length === 0) {
    if (body.textContent !== empty) body.replaceChildren(element("tr", {}, element("td", { colspan: columns.length, class: "none" }, empty)));
    return;
  }
  if (body.rows[0]?.cells[0].colSpan > 1) body.replaceChildren(); // it said that there are none
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, i) => {
    if (i >= body.rows.length) body.append(element("tr", {}, ...cells.map((_, k) => (k === 0 ? element("th", { scope: "row" }) : element("td")))));
    cells.forEach((cell, k) => {
      const { text, class: name = "", title = "" } = typeof cell === "object" ? cell : { text: cell };
      const node = body.rows[i].cells[k];
      setText(node, String(text));
      setClass(node, [columns[k].className, name].filter(Boolean).join(" "));
      if (node.title !== title) node.title = title;
    });
  });
}

// Rates. The past is dropped when the process is another one.

let past = []; // snapshots, oldest first

function remember(now) {
  if (past.length > 0 && past[0].view.since !== now.view.since) past = [];
  past.push(now);
  const end = Date.parse(now.at);
  while (past.length > 2 && end - Date.parse(past[1].at) >= rateSeconds * 1000) past.shift();
}

// rate of what of gives for a view; null until there are two.
function rate(of) {
  if (past.length < 2) return null;
  const from = past[0];
  const to = past[past.length - 1];
  const seconds = (Date.parse(to.at) - Date.parse(from.at)) / 1000;
  const before = of(from.view);
  const after = of(to.view);
  return seconds <= 0 || before == null || after == null ? null : Math.max(0, after - before) / seconds;
}

const taken = (input) => input.committed + input.rejected;
const inputOf = (view, topic) => view.inputs.find((one) => one.topic === topic);
const outputOf = (view, topic) => view.outputs.find((one) => one.topic === topic);
const endpointOf = (view, name) => view.effects?.endpoints.find((one) => one.endpoint === name);
const callsOf = (endpoint) => (endpoint == null ? null : sum(Object.values(endpoint.calls), (n) => n));
const endedOf = (view) => sum(view.transactions.ended, (one) => one.count);

// What the causes mean, in the words of the engine's reasons.
const causes = {
  rebalance: "partitions moved while it was open",
  produce: "a broker or the network failed a write",
  refused: "a broker refused a record",
  handler: "a handler failed",
  slow: "the handlers passed their deadline",
  fenced: "another process used this name",
  unknown: "the answer to the commit was lost",
  offsets: "the brokers' offsets say otherwise",
  group: "the group session failed",
  begin: "it could not be begun",
  open: "no session could be made",
  suspects: "the control topic could not be read or written",
};
const cause = (reason) => (reason && reason !== "none" ? `${reason}: ${causes[reason] ?? ""}` : "");
const outcomeClass = { committed: "", aborted: "warn", unknown: "bad" };

// The parts of the page.

function showState(now) {
  const failed = now.ready.filter((check) => check.failed);
  const state = $("state");
  state.hidden = false;
  if (now.view.draining) {
    setText(state, "Draining");
    setClass(state, "pill warn");
  } else if (failed.length === 0 && now.view.pauses.length > 0) {
    setText(state, "Ready, paused");
    setClass(state, "pill warn");
  } else {
    setText(state, failed.length > 0 ? "Not ready" : "Ready");
    setClass(state, failed.length > 0 ? "pill bad" : "pill");
  }
  setText($("about"), ` · ${now.version?.version ? `version ${now.version.version} · ` : ""}up ${duration((Date.parse(now.at) - Date.parse(now.view.since)) / 1000)}`);
  const list = $("checks");
  const checks = now.ready.length > 0 ? now.ready : [{ name: "no checks" }];
  while (list.children.length > checks.length) list.lastElementChild.remove();
  checks.forEach((check, i) => {
    if (i >= list.children.length) list.append(element("li"));
    const item = list.children[i];
    const text = `${check.name} ${check.failed ? `failed: ${check.failed}` : "ok"}`;
    if (item.textContent !== text) item.replaceChildren(element("strong", {}, check.name), text.slice(check.name.length));
    setClass(item, check.failed ? "bad" : "");
  });
}

// What operators have stopped for a while, here and in all other processes. The list is made anew only when it changes,
// so that the focus on a button stays.

let pausesShown = "";

const isEndpoint = (target) => target.startsWith("endpoint/");

function pauseText(one) {
  const what = one.target === "input" ? "All input is paused" : isEndpoint(one.target) ? `${one.target} is held: it is not called` : `${one.target} is paused: it is not read`;
  const ends = one.until ? `Ends by itself at ${dayAndClock(one.until)}.` : one.overdue_seconds > 0 ? `It was to be over at ${dayAndClock(one.expected)}, and stays until it is resumed.` : "Stays until it is resumed.";
  return `${what}, since ${dayAndClock(one.since)}, by ${one.actor}: ${one.reason}. ${ends}`;
}

function showPauses(now) {
  const list = now.view.pauses;
  const can = now.can.pause && token !== "";
  $("pauses").hidden = list.length === 0;
  const shown = JSON.stringify([can, list.map((one) => [pauseText(one), one.overdue_seconds > 0])]);
  if (shown === pausesShown) return;
  pausesShown = shown;
  setText($("pauses-title"), `Stopped by operators, in all processes: ${list.length}`);
  $("pauses-list").replaceChildren(...list.map((one) => {
    const item = element("li", { class: one.overdue_seconds > 0 ? "bad" : "" }, element("span", {}, pauseText(one)));
    if (can) {
      const button = element("button", { type: "button", "aria-label": `Resume ${one.target}` }, "Resume …");
      button.addEventListener("click", () => confirmOrder({
        title: `Resume ${one.target}?`,
        text: isEndpoint(one.target) ? "It is called again by all processes, the oldest effect of each key first." : "All processes read on where they stopped.",
        go: "Resume it", path: "api/v1/resume", more: { target: one.target },
        done: (told) => word(told.still ? `Ordered: ${one.target} is resumed, and still paused by ${told.still.join(", ")}.` : `Ordered: ${one.target} is resumed.`),
      }));
      item.append(button);
    }
    return item;
  }));
}

function offerTargets(view) {
  const list = $("pause-targets");
  if (list == null) return;
  const names = ["input", ...view.inputs.map((one) => `input/${one.topic}`), ...view.partitions.map((one) => `input/${one.topic}/${one.partition}`), ...view.endpoints.map((name) => `endpoint/${name}`)];
  const text = names.join(" ");
  if (list.dataset.names === text) return;
  list.dataset.names = text;
  list.replaceChildren(...names.map((name) => element("option", { value: name })));
}

function orderPause() {
  const target = $("pause-target").value.trim();
  const endpoint = isEndpoint(target);
  confirmOrder({
    title: endpoint ? `Hold ${target}?` : `Pause ${target}?`,
    text: endpoint
      ? "No process calls it until it is resumed. Effects wait in their order and use up no attempts."
      : "No process reads it until it is resumed. What is in hand is finished, the lag grows.",
    go: endpoint ? "Hold it" : "Pause it", path: endpoint ? "api/v1/hold" : "api/v1/pause", more: { target }, lasts: true,
    done: () => {
      $("pause-target").value = "";
      word(`Ordered: ${target} is ${endpoint ? "held" : "paused"}.`);
    },
  });
}

function stats(now) {
  const view = now.view;
  const behind = view.partitions.map((one) => one.lag_records).filter((n) => n != null);
  const waiting = largest(view.partitions.map((one) => one.lag_seconds));
  const held = largest([...view.inputs, ...view.outputs].map((one) => one.held_seconds));
  const times = view.transactions.recent.filter((one) => one.outcome === "committed").map((one) => one.seconds).sort((a, b) => a - b);
  const open = largest(view.lanes.map((lane) => (lane.begun ? (Date.parse(now.at) - Date.parse(lane.begun)) / 1000 : null)));
  const lost = sum(view.transactions.ended, (one) => (one.outcome === "committed" ? 0 : one.count));
  const halted = view.partitions.filter((one) => one.halted).length;
  const list = [
    ["In, records a second", perSecond(rate((v) => sum(v.inputs, taken)))],
    ["Out, records a second", perSecond(rate((v) => sum(v.outputs, (one) => one.records)))],
    ["Behind", behind.length > 0 ? count(sum(behind, (n) => n)) : unknown, behind.length > 0 ? `records, ${duration(waiting)}` : "not known"],
    ["Transactions a second", perSecond(rate(endedOf))],
    ["Transaction, median", times.length > 0 ? duration(times[times.length >> 1]) : unknown, "of the last 100"],
    ["Oldest open transaction", open == null ? "none" : duration(Math.max(0, open))],
    ["Did not commit", count(lost), "since start"],
  ];
  if (held >= heldSeconds) list.push(["Readers held back", duration(held), "by an open transaction", "warn"]);
  if (halted > 0) list.push(["Partitions halted", count(halted), "wait for an operator", "bad"]);
  if (view.kafka_up === false) list.push(["Brokers", "silent", "do not answer", "bad"]);
  return list;
}

function showStats(now) {
  const list = $("stats");
  const rows = stats(now);
  while (list.children.length > rows.length) list.lastElementChild.remove();
  rows.forEach(([name, value, note = "", kind = ""], i) => {
    if (i >= list.children.length) list.append(element("div", {}, element("dt"), element("dd", {}, element("span"), " ", element("small"))));
    const item = list.children[i];
    setText(item.querySelector("dt"), name);
    setText(item.querySelector("span"), value);
    setText(item.querySelector("small"), note);
    setClass(item, kind);
  });
}

// edges of the flow: kind, from, to, and what counts them.
function edges(view) {
  const list = [];
  for (const input of view.inputs) {
    list.push({ kind: "in", from: input.topic, to: input.handler, of: (v) => taken(inputOf(v, input.topic)) });
  }
  for (const output of view.outputs) {
    list.push({ kind: "out", from: "transaction", to: output.topic, of: (v) => outputOf(v, output.topic)?.records });
  }
  const effects = view.outputs.find((one) => one.kind === "effects");
  if (effects) {
    for (const name of view.endpoints) {
      list.push({ kind: "call", from: effects.topic, to: name, of: (v) => callsOf(endpointOf(v, name)) });
    }
  }
  return list.map((edge) => ({ ...edge, rate: rate(edge.of), total: edge.of(view) }));
}

function showFlow(now) {
  const list = edges(now.view);
  fill($("flow-table"), list.map((edge) => [edge.from, edge.kind === "call" ? `${edge.to} (calls)` : edge.to, perSecond(edge.rate), count(edge.total)]), "no route");
  const width = $("flow").clientWidth;
  const picture = width >= 760;
  $("flow-scroll").classList.toggle("unseen", picture);
  $("flow-scroll").tabIndex = picture ? -1 : 0;
  $("flow").replaceChildren(...(picture ? [drawFlow(now.view, list, width)] : []));
}

function shorten(text, width) {
  const most = Math.floor(width / 7.4);
  if (text.length <= most) return text;
  const tail = Math.floor((most - 1) / 2);
  return `${text.slice(0, most - 1 - tail)}…${text.slice(-tail)}`;
}

function behindOf(view, topic) {
  const known = view.partitions.filter((one) => one.topic === topic && one.lag_records != null);
  return known.length > 0 ? `${count(sum(known, (one) => one.lag_records))} behind` : "";
}

// columns of the picture: what stands in each, top to bottom.
function columns(view) {
  const handlers = [...new Set(view.inputs.map((one) => one.handler))];
  const paused = (topic) => (view.pauses.some((one) => one.target === "input" || one.target === `input/${topic}`) ? "paused" : view.pauses.some((one) => one.target.startsWith(`input/${topic}/`)) ? "paused in part" : "");
  const kinds = { output: "output", effects: "effects, to the ledger", "dead-letter": "dead letters" };
  const list = [
    view.inputs.map((one) => ({ name: one.topic, note: [paused(one.topic), behindOf(view, one.topic)].filter(Boolean).join(", "), kind: paused(one.topic) ? "warn" : "" })),
    handlers.map((name) => ({ name, note: "handler" })),
    view.outputs.map((one) => ({ name: one.topic, note: kinds[one.kind] })),
  ];
  if (view.outputs.some((one) => one.kind === "effects")) {
    list.push(view.endpoints.map((name) => {
      if (view.pauses.some((one) => one.target === `endpoint/${name}`)) return { name, note: "endpoint, held", kind: "warn" };
      const breaker = endpointOf(view, name)?.breaker;
      const kind = breaker === "open" ? "bad" : breaker === "half-open" ? "warn" : "";
      return { name, note: breaker ? `endpoint, breaker ${breaker}` : "endpoint", kind };
    }));
  }
  return list;
}

function drawFlow(view, list, width) {
  const rowHeight = 54;
  const boxHeight = 40;
  const gap = Math.min(150, width * 0.1);
  const bar = 8;
  const sets = columns(view);
  const height = Math.max(...sets.map((set) => set.length)) * rowHeight;
  // Between handlers and topics stands the transaction: a gap, the bar, a gap.
  const boxWidth = (width - gap * sets.length - bar) / sets.length;
  const places = new Map();
  let x = 0.5;
  let barX = 0;
  sets.forEach((set, column) => {
    set.forEach((node, i) => {
      places.set(`${column}/${node.name}`, { ...node, x, y: (height - set.length * rowHeight) / 2 + i * rowHeight + rowHeight / 2 });
    });
    x += boxWidth + gap;
    if (column === 1) {
      barX = x;
      x += bar + gap;
    }
  });
  const svg = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, height });
  const line = (fromX, fromY, toX, toY, value, labelX, labelY, anchor) => {
    const idle = !(value > 0);
    const middle = (fromX + toX) / 2;
    svg.append(element("svg:path", { d: `M${fromX} ${fromY} C${middle} ${fromY} ${middle} ${toY} ${toX} ${toY}`, class: idle ? "idle" : "", "stroke-width": idle ? 1.5 : 1.5 + Math.log10(1 + value) }));
    return () => svg.append(element("svg:text", { x: labelX, y: labelY, "text-anchor": anchor, class: idle ? "rate idle" : "rate" }, `${perSecond(value)}/s`));
  };
  const labels = [];
  for (const edge of list) {
    if (edge.kind === "in") {
      const from = places.get(`0/${edge.from}`);
      const to = places.get(`1/${edge.to}`);
      labels.push(line(from.x + boxWidth, from.y, to.x, to.y, edge.rate, from.x + boxWidth + 8, from.y - 6, "start"));
    } else if (edge.kind === "out") {
      const topic = places.get(`2/${edge.to}`);
      labels.push(line(barX + bar, topic.y, topic.x, topic.y, edge.rate, topic.x - 8, topic.y - 6, "end"));
    } else {
      const topic = places.get(`2/${edge.from}`);
      const endpoint = places.get(`3/${edge.to}`);
      labels.push(line(topic.x + boxWidth, topic.y, endpoint.x, endpoint.y, edge.rate, endpoint.x - 8, endpoint.y - 6, "end"));
    }
  }
  for (const handler of sets[1]) {
    const at = places.get(`1/${handler.name}`);
    const value = rate((v) => sum(v.inputs.filter((one) => one.handler === handler.name), taken));
    labels.push(line(at.x + boxWidth, at.y, barX, at.y, value, at.x + boxWidth + 8, at.y - 6, "start"));
  }
  svg.append(element("svg:rect", { class: "commit", x: barX, y: 2, width: bar, height: height - 4, rx: 3 }, element("svg:title", {}, "one transaction")));
  for (const node of places.values()) {
    svg.append(
      element("svg:rect", { x: node.x, y: node.y - boxHeight / 2, width: boxWidth - 1, height: boxHeight, rx: 5 }, element("svg:title", {}, node.name)),
      element("svg:text", { x: node.x + 10, y: node.y - 2 }, shorten(node.name, boxWidth - 20)),
      element("svg:text", { x: node.x + 10, y: node.y + 12, class: `small ${node.kind ?? ""}` }, shorten(node.note, (boxWidth - 20) * 1.15)),
    );
  }
  labels.forEach((draw) => draw());
  return svg;
}

function showPartitions(now) {
  const ago = (text) => (text ? duration(Math.max(0, (Date.parse(now.at) - Date.parse(text)) / 1000)) : unknown);
  fill($("partitions"), now.view.partitions.map((one) => [
    `${one.topic}/${one.partition}`,
    count(one.lag_records),
    duration(one.lag_seconds),
    one.halted ? { text: `halted: ${one.halted}`, class: "bad text long" }
      : one.paused ? { text: `paused by ${one.paused}`, class: "warn text" }
      : one.held_records > 0 && inputOf(now.view, one.topic)?.held_seconds >= heldSeconds ? { text: `${count(one.held_records)} held back upstream`, class: "warn text" }
        : one.lag_records == null ? { text: "lag not known yet", class: "quiet" }
          : { text: one.lag_records > 0 ? "behind" : "level", class: one.lag_records > 0 ? "" : "quiet" },
    one.lane,
  ]), "none: other instances own them all, or this one has not joined the group yet");
  fill($("lanes"), now.view.lanes.map((lane) => [
    lane.lane,
    { text: lane.joined ? lane.phase : `${lane.phase}, not in the group`, class: lane.joined ? "" : "warn" },
    ago(lane.since),
    count(lane.partitions),
    lane.last_commit ? `${ago(lane.last_commit)} ago` : unknown,
  ]), "none");
}

function drawTimeline(recent, width) {
  const up = 76; // for records
  const down = 40; // for durations
  const head = 14;
  const records = Math.max(1, ...recent.map((one) => one.records));
  const seconds = Math.max(1e-9, ...recent.map((one) => one.seconds));
  const step = width / 100;
  const thick = Math.max(1, step - Math.min(2, step * 0.3));
  const height = head + up + down + 14;
  const svg = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const base = head + up;
  const marks = []; // above the bars of neighbours
  recent.forEach((one, i) => {
    const x = width - (recent.length - i) * step;
    const tall = Math.max(1, Math.sqrt(one.records / records) * up);
    const title = `${clock(one.at)} lane ${one.lane}: ${one.outcome}${one.reason ? `, ${one.reason}` : ""}, ${count(one.records)} records, ${bytes(one.bytes)}, ${duration(one.seconds)}`;
    svg.append(
      element("svg:rect", { class: one.outcome, x, y: base - tall, width: thick, height: tall }, element("svg:title", {}, title)),
      element("svg:rect", { class: `${one.outcome} took`, x, y: base + 1, width: thick, height: Math.max(1, Math.sqrt(one.seconds / seconds) * down) }, element("svg:title", {}, title)),
    );
    if (one.outcome !== "committed") {
      marks.push(element("svg:text", { class: `mark ${one.outcome}`, x: x + thick / 2, y: Math.max(10, base - tall - 3), "text-anchor": "middle" }, one.outcome === "aborted" ? "×" : "?"));
    }
  });
  svg.append(
    element("svg:line", { x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 }),
    element("svg:text", { class: "small", x: 0, y: 10 }, `records, up to ${count(records)}`),
    element("svg:text", { class: "small", x: 0, y: height - 2 }, `time taken, up to ${duration(seconds)}`),
    element("svg:text", { class: "small", x: width, y: height - 2, "text-anchor": "end" }, "now →"),
    ...marks,
  );
  return svg;
}

function showTransactions(now) {
  const { recent, failed, ended } = now.view.transactions;
  const timeline = $("timeline");
  if (recent.length > 0) {
    const of = (outcome) => recent.filter((one) => one.outcome === outcome).length;
    timeline.setAttribute("aria-label", `The last ${recent.length} transactions: ${of("committed")} committed, ${of("aborted")} aborted, ${of("unknown")} of unknown outcome; ` +
      `up to ${count(largest(recent.map((one) => one.records)))} records and ${duration(largest(recent.map((one) => one.seconds)))} each.`);
    timeline.replaceChildren(drawTimeline(recent, Math.max(200, timeline.clientWidth)));
  } else {
    timeline.setAttribute("aria-label", "No transaction yet");
    timeline.replaceChildren(element("p", { class: "none" }, "No transaction yet."));
  }
  fill($("ended"), [...ended].sort((a, b) => b.count - a.count).map((one) => [
    { text: one.outcome, class: outcomeClass[one.outcome] },
    count(one.count),
    { text: cause(one.reason), class: "text" },
  ]), "none yet");
  fill($("failed"), [...failed].reverse().map((one) => [
    clock(one.at),
    { text: one.outcome, class: outcomeClass[one.outcome] },
    { text: one.reason, title: causes[one.reason] ?? "" },
    one.lane,
    count(one.records),
    duration(one.seconds),
  ]), "none since the start");
}

// ledgerTrouble says since when the ledger cannot be asked, why, and what to do.
function ledgerTrouble(effects) {
  if (effects.ledger_up) return "";
  const known = effects.away ? ` since ${clock(effects.away.since)}: ${effects.away.error}` : "";
  const next = effects.away ? ` Next: ${effects.away.next}.` : "";
  return `The ledger cannot be used${known}. What it holds is not known, and effects wait on their topic; outputs flow without it.${next}`;
}

function showEffects(now) {
  const effects = now.view.effects;
  const word = $("effects-word");
  const trouble = $("effects-trouble");
  $("effects-scroll").hidden = effects == null;
  if (effects == null) {
    trouble.hidden = true;
    setText(word, now.view.endpoints.length > 0 ? "This process has no database: effects wait on their topic for a process that has one." : "No endpoint is configured.");
    return;
  }
  const wrong = [
    ledgerTrouble(effects),
    effects.halted > 0 ? `Lanes of effects that wait for an operator: ${effects.halted}; the log says for what.` : "",
  ].filter(Boolean).join(" ");
  trouble.hidden = !wrong;
  setText(trouble, wrong);
  setText(word, [
    `Lanes that are dispatched here: ${effects.lanes}.`,
    effects.waiting_seconds > 0 ? `The oldest effect that is not in the ledger has been waiting for ${duration(effects.waiting_seconds)}.` : "",
    `Since the start ${count(effects.ingested)} effects came in, ${count(effects.results)} results were told.`,
  ].filter(Boolean).join(" "));
  fill($("effects"), effects.endpoints.map((one) => [
    one.endpoint,
    one.paused ? { text: "held by an operator", class: "warn" } : { text: one.breaker ?? "not called here", class: { open: "bad", "half-open": "warn", closed: "good" }[one.breaker] ?? "quiet" },
    count(one.pending),
    { text: count(one.dead), class: one.dead > 0 ? "bad" : "" },
    { text: count(one.parked), class: one.parked > 0 ? "warn" : "" },
    duration(one.oldest_seconds),
    perSecond(rate((v) => callsOf(endpointOf(v, one.endpoint)))),
    one.limit > 0 ? `${count(one.in_flight)} of ${count(one.limit)}` : unknown,
  ]), "no endpoint is configured");
}

function show(now) {
  remember(now);
  showState(now);
  showPauses(now);
  offerTargets(now.view);
  showStats(now);
  for (const part of document.querySelectorAll("[data-live]")) part.hidden = false;
  showFlow(now);
  showPartitions(now);
  showTransactions(now);
  showEffects(now);
  fill($("dead"), now.view.dead_letters.map((one) => [one.reason, one.topic, count(one.records)]), "none since the start");
}

// The stream. The browser opens it again by itself after a break, but not after an answer that is no stream.

const connection = $("connection");
let source = null;
let latest = null;
let heard = 0; // when the last snapshot came, by the monotonic clock
let heardAt = null; // and by the wall's
let trouble = "";

function say(text, kind = "") {
  setText(connection, text); // only a change is spoken
  setClass(connection, kind);
}

function watch() {
  if (document.hidden) return; // nobody looks, and the stream is closed
  if (heardAt == null) {
    if (performance.now() > staleMillis) say(`Not connected. ${trouble || "Trying again."}`, "stale");
  } else if (performance.now() - heard > staleMillis) {
    say(`Stale since ${clock(heardAt)}: ${trouble || "this page is cut off from the process."} Trying again.`, "stale");
  }
}

function listen() {
  if (source != null || document.hidden) return;
  source = new EventSource("api/v1/events");
  source.addEventListener("snapshot", (event) => {
    trouble = "";
    heard = performance.now();
    heardAt = new Date();
    latest = JSON.parse(event.data);
    say("Live");
    show(latest);
  });
  source.addEventListener("problem", (event) => {
    trouble = `the process answers, but ${JSON.parse(event.data).detail}.`;
    watch();
  });
  source.addEventListener("error", () => {
    watch();
    if (source?.readyState !== EventSource.CLOSED) return;
    source = null;
    setTimeout(listen, againMillis);
  });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
    return;
  }
  past = [];
  listen();
});
let drawnWidth = 0;
new ResizeObserver(() => {
  if (latest == null || $("main").clientWidth === drawnWidth) return;
  drawnWidth = $("main").clientWidth;
  showFlow(latest);
  showTransactions(latest);
}).observe($("main"));
setInterval(watch, 500);

// The configuration does not change while the process runs.

async function showConfig() {
  const answer = await fetch("api/v1/config");
  const { settings } = await answer.json();
  if (!settings) return;
  const shown = (value) => (typeof value === "string" ? value || "\"\"" : JSON.stringify(value));
  fill($("config"), settings.map((one) => [
    { text: one.path, title: one.env },
    { text: shown(one.value), class: "text" },
    { text: one.origin, class: one.origin === "default" ? "quiet" : "text" },
  ]), "none");
  $("config-panel").hidden = false;
}

// Orders. The token lives in this variable and nowhere else.

let token = "";

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body) headers["Content-Type"] = "application/json";
  try {
    const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
    const told = await answer.json();
    return { code: answer.status, told, problem: answer.ok ? "" : told.detail || told.title };
  } catch {
    return { code: 0, problem: "the process did not answer" };
  }
}

const word = (text) => setText($("order-word"), text);

// look asks for what only the token shows; null where there is no answer, and say has told why.
async function look(path, say = word) {
  const { code, told, problem } = await ask(path);
  if (!problem) return told;
  if (code === 401) lock("The token is wrong now.");
  else say(problem);
  return null;
}

function lock(text) {
  token = "";
  if (latest != null) showPauses(latest);
  $("unlocked").hidden = true;
  $("unlock").hidden = false;
  for (const id of ["found-scroll", "found-more", "audit-scroll"]) if ($(id)) $(id).hidden = true;
  for (const id of ["found", "audit"]) $(id)?.tBodies[0].replaceChildren();
  offerLetters();
  word(text);
}

async function unlock() {
  token = $("token").value;
  // It is judged before anything else, so that a process without a ledger says 404 to the right one.
  const { code, problem } = await ask("api/v1/effects?limit=1");
  if (code === 401 || code === 403 || code === 0 || code === 500) {
    lock(code === 401 ? "The token is wrong." : problem);
    return;
  }
  $("token").value = "";
  $("unlock").hidden = true;
  $("unlocked").hidden = false;
  if (latest != null) showPauses(latest);
  offerLetters();
  word("");
  $("drain").focus();
}

// confirmOrder asks for a reason and gives the order; done is called with what the process said.
function confirmOrder({ title, text, go, drain = false, lasts = false, more = {}, path, done }) {
  const dialog = $("confirm");
  setText($("confirm-title"), title);
  setText($("confirm-text"), text);
  setText($("confirm-go"), go);
  setText($("confirm-word"), "");
  $("leave-label").hidden = !drain;
  $("for-label").hidden = !lasts;
  $("leave").checked = false;
  $("for").value = "";
  $("reason").value = "";
  $("confirm-form").onsubmit = async (event) => {
    event.preventDefault();
    $("confirm-go").disabled = true;
    const reason = $("reason").value;
    const { problem, told } = await ask(path, { reason, actor: $("actor").value, ...(drain && { leave: $("leave").checked }), ...more, ...(lasts && { for: $("for").value.trim() }) });
    $("confirm-go").disabled = false;
    if (problem) {
      setText($("confirm-word"), problem);
      return;
    }
    dialog.close();
    done(told);
  };
  dialog.showModal();
  $("reason").focus();
}

function keyText(base64) {
  const raw = Uint8Array.from(atob(base64 ?? ""), (c) => c.charCodeAt(0));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(raw);
    if (!/[\p{C}]/u.test(text)) return text;
  } catch { /* it is no text */ }
  return `0x${Array.from(raw, (b) => b.toString(16).padStart(2, "0")).join("")}`;
}

// Which orders make sense for an effect, as the API judges it too.
const fitting = { retry: ["dead", "unknown", "parked"], cancel: ["pending", "parked", "dead"] };

function effectRow(effect) {
  const buttons = Object.keys(fitting).filter((action) => fitting[action].includes(effect.state)).map((action) => {
    const name = action === "retry" ? "Retry" : "Cancel";
    const button = element("button", { type: "button", "aria-label": `${name} effect ${effect.effect}` }, `${name} …`);
    button.addEventListener("click", () => confirmOrder({
      title: `${name} effect ${effect.effect}?`,
      text: action === "retry"
        ? `It is called at ${effect.endpoint} again, with the same id and the same bytes.`
        : `It is dead then: ${effect.endpoint} is not called for it any more, and its result event says so, with the reason. A call that is being made is not stopped.`,
      go: `${name} it`, path: `api/v1/effects/${effect.effect}/${action}`,
      done: () => {
        word(`Ordered: ${action} effect ${effect.effect}. The process that dispatches its lane does it.`);
        lookAtEffects();
      },
    }));
    return button;
  });
  return element("tr", {},
    element("th", { scope: "row" }, effect.effect),
    element("td", {}, effect.endpoint),
    element("td", { class: "text" }, keyText(effect.key)),
    element("td", { class: "number" }, duration(Math.max(0, (Date.now() - Date.parse(effect.committed)) / 1000))),
    element("td", { class: "number" }, count(effect.attempts)),
    element("td", { class: "text" }, [effect.http_status || "", effect.error || "", effect.waits ? `waits for ${effect.waits}` : ""].filter(Boolean).join(", ") || unknown),
    element("td", { class: "nowrap" }, ...buttons));
}

async function lookAtEffects(cursor) {
  const state = $("effect-state").value;
  const query = new URLSearchParams({ state, limit: "50", ...(cursor && { cursor }) });
  const told = await look(`api/v1/effects?${query}`);
  if (told == null) return;
  const body = $("found").tBodies[0];
  if (!cursor) body.replaceChildren();
  body.append(...told.effects.map(effectRow));
  if (body.rows.length === 0) body.append(element("tr", {}, element("td", { class: "none", colspan: "7" }, `no effect is ${state}`)));
  setText($("found-caption"), `Effects that are ${state}${told.next ? ", the first of them" : ""}`);
  $("found-scroll").hidden = false;
  $("found-more").hidden = !told.next;
  $("found-more").onclick = () => lookAtEffects(told.next);
}

async function lookAtAudit() {
  const told = await look("api/v1/audit?limit=20");
  if (told == null) return;
  fill($("audit"), told.map((one) => [
    { text: dayAndClock(one.time), class: "nowrap" }, one.effect, one.action, { text: one.actor, class: "text" }, { text: one.reason, class: "text" }, one.result,
  ]), "nobody has ordered anything");
  $("audit-scroll").hidden = false;
}

// Dead letters. They are read from their topic when somebody asks, and forgotten with the token.

function offerLetters() {
  if (!$("letters")) return; // no token is configured
  $("letters").hidden = token === "";
  $("letters-locked").hidden = token !== "";
  if (token !== "") return;
  $("letter").close();
  $("letters-scroll").hidden = true;
  setText($("letters-word"), "");
  for (const body of [...$("letters-found").tBodies]) body.remove();
}

const size = (n) => (n < 0 ? "null" : count(n));

function letterRow(letter) {
  const button = element("button", { type: "button", "aria-label": `Show dead letter ${letter.letter}` }, letter.letter);
  button.addEventListener("click", () => showLetter(letter.letter));
  return element("tr", {},
    element("th", { scope: "row" }, button),
    element("td", { class: "text long" }, letter.error ?? ""),
    element("td", { class: "text" }, letter.source ?? unknown),
    element("td", { class: "nowrap" }, dayAndClock(letter.time)),
    element("td", { class: letter.state === "open" ? "" : "quiet" }, letter.state),
    element("td", { class: "number" }, size(letter.value_bytes)));
}

async function lookAtLetters() {
  const say = (text) => setText($("letters-word"), text);
  $("letters-look").disabled = true;
  say("Reading …");
  const told = await look("api/v1/dead-letters", say);
  $("letters-look").disabled = false;
  if (told == null || token === "") return;
  for (const body of [...$("letters-found").tBodies]) body.remove();
  $("letters-found").append(...told.reasons.map(({ reason, letters, newest }) => element("tbody", {},
    element("tr", {}, element("th", { class: "group", colspan: "6", scope: "rowgroup" }, `${reason}: ${count(letters)}${letters > newest.length ? `, the last ${newest.length}` : ""}`)),
    ...newest.map(letterRow))));
  setText($("letters-caption"), `Dead letters of all instances on ${told.topic}, the last written of each reason`);
  $("letters-scroll").hidden = told.letters === 0;
  say(`${count(told.letters)} read${told.more ? "; there are older ones, which were not" : ", which are all"}.`);
}

function showLetterContents(letter) {
  const { contents, headers, more_headers: more = 0, value_bytes: valueBytes } = letter;
  fill($("letter-headers"), headers.map((one) => [
    { text: one.key, class: "text" }, size(one.bytes), contents ? { text: one.value, class: "text" } : { text: "hidden", class: "quiet" },
  ]), "it had none");
  setText($("letter-value-word"), [
    valueBytes < 0 ? "It is null." : `${count(valueBytes)} bytes${contents ? ` of ${{ json: "JSON, a member a line", text: "text", hex: "no text, in hexadecimal" }[contents.form]}` : ""}.`,
    contents?.cut > 0 ? `The last ${count(contents.cut)} are left out.` : "",
    more > 0 ? `Of the headers ${count(more)} are left out.` : "",
  ].filter(Boolean).join(" "));
  const value = $("letter-value");
  value.hidden = !contents?.text;
  setText(value, contents?.text ?? "");
  setClass(value, contents?.form ?? "");
}

async function showLetter(position) {
  setText($("letters-word"), "");
  const letter = await look(`api/v1/dead-letters/${position}`, (text) => setText($("letters-word"), text));
  if (letter == null || token === "") return;
  setText($("letter-title"), `Dead letter ${position}`);
  $("letter-facts").replaceChildren(...[
    ["Reason", letter.reason], ["Error", letter.error], ["Handler", letter.handler], ["Record", letter.source], ["Its time", dayAndClock(letter.time)],
    ["Key", letter.key], ["State", letter.state], ["Redriven", letter.redrives > 0 ? `${count(letter.redrives)} times before` : ""], ["Id", letter.id],
  ].filter(([, text]) => text).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
  showLetterContents(letter);
  setText($("letter-word"), "");
  if ($("letter-show")) setText($("letter-show"), `processor dlq show ${position}`);
  $("letter-next").hidden = letter.state !== "open";
  $("letter-next").replaceChildren("To send it back or give it up: ", element("code", {}, `processor dlq redrive ${position} --because REASON`), ", ", element("code", {}, `processor dlq discard ${position} --because REASON`), ".");
  const button = $("letter-contents");
  if (button) {
    button.disabled = false;
    button.onclick = async () => {
      button.disabled = true;
      const whole = await look(`api/v1/dead-letters/${position}?contents=true`, (text) => setText($("letter-word"), text));
      button.disabled = whole != null;
      if (whole != null && $("letter").open) showLetterContents(whole);
    };
  }
  $("letter").showModal();
  $("letter-close").focus();
}

function offerOrders() {
  $("orders").hidden = false;
  if (!$("unlock")) return; // no token is configured
  $("unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    unlock();
  });
  $("lock").addEventListener("click", () => {
    lock("The token is forgotten.");
    $("token").focus();
  });
  $("drain").addEventListener("click", () => confirmOrder({
    title: "Drain this process?",
    text: "It finishes and commits what is in hand, takes no more work, and rests until it is ended. There is no way back but a restart.",
    go: "Drain it", drain: true, path: "api/v1/drain",
    done: (told) => word(told.leave ? "Draining, and leaving the group." : "Draining."),
  }));
  $("pause-form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    orderPause();
  });
  $("confirm-not").addEventListener("click", () => $("confirm").close());
  $("effect-look")?.addEventListener("click", () => lookAtEffects());
  $("audit-look")?.addEventListener("click", lookAtAudit);
  $("letters-look")?.addEventListener("click", lookAtLetters);
  $("letter-close")?.addEventListener("click", () => $("letter").close());
  $("letter")?.addEventListener("close", () => { // nothing of it stays in the document
    for (const id of ["letter-facts", "letter-value", "letter-next"]) $(id).replaceChildren();
    $("letter-headers").tBodies[0].replaceChildren();
  });
}

listen();
offerOrders();
showConfig();

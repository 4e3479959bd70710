// Asks the scheduler what has changed, every two seconds, and shows it. All text goes in as text, never as HTML.

import { BlockMap, RUNNING, STATES, WORDS, drawKey } from "./map.js";

const EVERY_MS = 2000;
const PATIENCE = 3; // answers that may fail in a row
const one = (id) => document.getElementById(id);
const view = { since: 0, job: null, wanted: null, shown: null, volumes: new Map(), maps: new Map(), errors: [], failed: 0 };

const element = (tag, text = "", kind = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const count = (number) => Math.round(number).toLocaleString("en");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const bytes = (number) => {
  if (number === null || number === undefined) return "";
  return number >= 2 ** 30 ? `${(number / 2 ** 30).toFixed(1)} GiB` : `${count(number / 2 ** 20)} MiB`;
};
const duration = (seconds) => {
  if (seconds < 0.1) return "< 0.1 s";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${(minutes / 1440).toFixed(1)} days`;
};
const rate = (voxels) => {
  const units = [["G", 1e9], ["M", 1e6], ["k", 1e3]];
  const [unit, scale] = units.find(([, size]) => voxels >= size) ?? ["", 1];
  return `${(voxels / scale).toFixed(voxels < 1000 ? 0 : 1)} ${unit}vox/s`;
};
const percent = (share) => `${Math.floor(100 * share)} %`;

// The top: what is going on in one sentence, and the figures.
const STATE_WORDS = { running: "Running", done: "Done", stopped: "Stopped", lost: "Client lost" };
const STATE_KINDS = { running: "running", done: "good", stopped: "bad", lost: "bad" };

const timeLeft = (job) => {
  if (job.left_s === null) return ["not known yet", "no task of a stage has ended lately"];
  const words = job.unknown.length ? `without ${job.unknown.join(", ")}: not timed yet` : "from the rate of each stage";
  return [`${job.unknown.length ? "at least " : "about "}${duration(job.left_s)}`, words];
};

const showTop = (job) => {
  document.title = `${percent(job.share)} ${job.name}`;
  one("name").textContent = job.name;
  one("state").hidden = false;
  one("state").textContent = STATE_WORDS[job.state];
  one("state").className = STATE_KINDS[job.state];
  const left = timeLeft(job);
  const doing = job.state === "running" ? `${percent(job.share)} of the work is done, ${job.left_s === null ? "time left not known yet" : `${left[0]} left`}` : "";
  one("verdict").textContent = doing || (job.state === "done" ? `in ${duration(job.running_s)}` : `at ${percent(job.share)} of the work`);
  const parts = [`Workflow ${job.workflow}`, plural(job.count, "volume"), `into ${job.out}`];
  one("about").textContent = parts.join(", ");
  one("whole").setAttribute("aria-valuenow", Math.floor(100 * job.share));
  one("whole").firstElementChild.style.width = `${100 * job.share}%`;
};

const showFigures = (job) => {
  const lines = [...view.volumes.values()];
  const finished = lines.filter((line) => line[0] === "done").length;
  const total = (key) => job.stages.reduce((sum, stage) => sum + stage[key], 0);
  const [left, how] = timeLeft(job);
  const alive = job.state === "running";
  const figures = [
    ["volumes finished", `${count(finished)} of ${count(job.count)}`, ""],
    ["block tasks ended", count(total("settled")), total("resumed") ? `${count(total("resumed"))} by an earlier client` : ""],
    ["speed", alive && job.voxels_per_s ? rate(job.voxels_per_s) : "", "all stages together, lately"],
    [alive ? "time left" : "took", alive ? left : duration(job.running_s), alive ? how : ""],
    ["retries", count(total("retried")), ""],
    ["quarantined", count(total("quarantined")), total("quarantined") ? "failed in every try" : ""],
  ];
  one("figures").replaceChildren(
    ...figures.filter(([, value]) => value !== "").map(([name, value, more]) => {
      const box = element("div");
      const shown = element("dd", value);
      if (more) shown.append(element("small", more));
      box.append(element("dt", name), shown);
      return box;
    }),
  );
};

const showWarnings = (job) => {
  const warnings = [];
  if (job.message) warnings.push(element("li", job.message));
  const quarantined = job.stages.reduce((sum, stage) => sum + stage.quarantined, 0);
  if (quarantined) {
    const item = element("li", `${plural(quarantined, "block")} failed in every try; the other blocks of the stage still run, then the volume stops. `);
    const link = element("a", "See the errors");
    link.href = "#error-section";
    item.append(link);
    warnings.push(item);
  }
  one("warnings").replaceChildren(...warnings);
};

// The maps of one volume.
const showMaps = (job) => {
  if (job.volume !== view.shown) {
    view.maps.clear();
    view.shown = job.volume;
    one("maps").replaceChildren();
  }
  for (const [stage, change] of Object.entries(job.maps)) {
    if (!view.maps.has(stage)) view.maps.set(stage, new BlockMap(stage, (words) => { one("pointed").textContent = words; }));
    view.maps.get(stage).update(change);
  }
  const maps = [...view.maps.values()];
  const drawn = maps.filter((map) => map.states.length > 1);
  for (const map of drawn) {
    if (!map.figure.isConnected) one("maps").prepend(map.figure); // the stage under way comes first
    map.draw();
  }
  const single = maps.filter((map) => map.states.length === 1).map((map) => `${map.stage} ${[...WORDS, "running"][map.state(0)]}`);
  one("single").textContent = single.length ? `Stages of one task: ${single.join(", ")}.` : "";
  one("map-section").hidden = maps.length === 0;
  one("map-title").textContent = job.count > 1 ? `Blocks of ${job.volume}` : "Blocks";
  const total = maps.reduce((sum, map) => map.counts().map((n, state) => n + (sum[state] ?? 0)), []);
  showLegend(total);
};

const LEGEND = [0, RUNNING, 1, 2, 3, 4, 5];
const showLegend = (counts) => {
  const legend = one("legend");
  if (!legend.children.length) {
    for (const state of LEGEND) {
      const key = element("span", "", "key");
      key.append(element("canvas"), `${[...WORDS, "running"][state]} `, element("b"));
      key.firstElementChild.setAttribute("aria-hidden", "true");
      legend.append(key);
    }
  }
  LEGEND.forEach((state, index) => {
    legend.children[index].lastElementChild.textContent = count(counts[state] ?? 0);
    drawKey(legend.children[index].firstElementChild, state);
  });
};

// The volumes: a button each.
const fillChip = (chip, name, [state, stage, share, counts]) => {
  const total = counts.reduce((sum, n) => sum + n, 0);
  const head = element("span");
  const told = { "under way": percent(share), quarantined: "failed", waiting: "" }[state] ?? state;
  const quarantined = counts[STATES.indexOf("quarantined")];
  const more = { quarantined: `${plural(quarantined, "block")} quarantined`, done: "all stages", waiting: "not begun" }[state] ?? stage;
  head.append(element("b", name), element("em", told));
  const strip = element("span", "", "strip");
  ["done", "repeated", "skipped", "retrying", "quarantined"].forEach((of) => {
    const index = STATES.indexOf(of);
    if (!counts[index]) return;
    const part = element("i", "", `of-${of}`);
    part.style.width = `${(100 * counts[index]) / total}%`;
    strip.append(part);
  });
  chip.className = `chip ${state}`;
  chip.title = name;
  chip.replaceChildren(head, element("small", more), strip);
};

const chips = new Map();
const RANKS = ["quarantined", "under way", "waiting", "done"];

// What needs a look first, what is done last.
const sortChips = () => {
  const rank = (name) => RANKS.indexOf(view.volumes.get(name)[0]);
  const focused = document.activeElement;
  const sorted = [...chips.keys()].sort((a, b) => rank(a) - rank(b));
  one("volumes").append(...sorted.map((name) => chips.get(name)));
  if (focused?.classList.contains("chip")) focused.focus({ preventScroll: true });
};

const showVolumes = (job) => {
  let moved = false;
  for (const [name, line] of Object.entries(job.volumes)) {
    moved ||= view.volumes.get(name)?.[0] !== line[0];
    view.volumes.set(name, line);
    if (!chips.has(name)) {
      const chip = element("button");
      chip.type = "button";
      chip.addEventListener("click", () => {
        view.wanted = view.wanted === name ? null : name;
        poll();
      });
      chips.set(name, chip);
    }
    fillChip(chips.get(name), name, line);
  }
  if (moved) sortChips();
  for (const [name, chip] of chips) chip.setAttribute("aria-pressed", String(name === job.volume));
  one("volume-section").hidden = job.count < 2;
  one("volume-words").textContent = view.wanted
    ? "Choose a volume to see its blocks; choose it again to follow the one under way."
    : "The blocks above are those of the first volume under way. Choose one to stay with it.";
};

// Tables.
const bar = (share, tight = false) => {
  const box = element("span", "", "bar");
  const inner = element("i");
  inner.style.width = `${100 * Math.min(1, share)}%`;
  box.classList.toggle("tight", tight && share > 0.7);
  box.classList.toggle("full", tight && share > 0.9);
  box.setAttribute("aria-hidden", "true");
  box.append(inner);
  return box;
};
const row = (title, cells) => {
  const line = document.createElement("tr");
  const head = element("th", title, "text");
  head.scope = "row";
  line.append(head, ...cells.map((cell) => {
    const made = element("td", typeof cell === "string" ? cell : "");
    if (typeof cell !== "string") {
      made.className = "text";
      made.append(cell);
    }
    return made;
  }));
  return line;
};
const some = (number) => (number ? count(number) : "");

const showStages = (job) => {
  one("stages").replaceChildren(...job.stages.map((stage) => {
    const share = stage.blocks ? stage.settled / stage.blocks : 0;
    return row(stage.name, [
      stage.blocks === null ? "not begun" : percent(share),
      bar(share),
      stage.blocks === null ? "" : `${count(stage.settled)} of ${count(stage.blocks)}`,
      stage.voxels_per_s ? (stage.voxels_per_s / 1e6).toFixed(1) : "",
      stage.mean_s === null ? "" : duration(stage.mean_s),
      some(stage.resumed), some(stage.skipped), some(stage.retried), some(stage.quarantined),
    ]);
  }));
};

const showWorkers = (workers, several) => {
  const cards = workers.some((worker) => worker.gpu);
  for (const head of document.querySelectorAll("th.gpu")) head.hidden = !cards;
  const used = workers.reduce((sum, worker) => sum + worker.memory_bytes, 0);
  one("worker-words").textContent = workers.length
    ? `${plural(workers.length, "worker")} with ${bytes(used)} in use.`
    : "No worker is there; the run waits for one.";
  one("workers").replaceChildren(...workers.map((worker) => {
    const gpu = worker.gpu ?? {};
    const limit = worker.limit_bytes;
    const cells = [bytes(worker.memory_bytes), limit ? bar(worker.memory_bytes / limit, true) : "no limit"];
    if (limit) cells[1].title = `limit ${bytes(limit)}`;
    if (cards) {
      cells.push(bytes(gpu.memory_bytes), gpu.limit_bytes ? bar(gpu.memory_bytes / gpu.limit_bytes, true) : "");
      cells.push(typeof gpu.busy === "number" ? `${Math.round(gpu.busy)} %` : "");
    }
    const runs = worker.running.map(([volume, stage, number]) => `${stage} ${number}${several ? ` of ${volume}` : ""}`);
    const line = row(worker.name, [...cells, element("span", runs.join(", "))]);
    line.lastElementChild.className = "text runs";
    line.title = [worker.host, gpu.name].filter(Boolean).join(", ");
    return line;
  }));
};

const showErrors = (job) => {
  for (const error of job.errors) {
    const entry = document.createElement("details");
    const line = document.createElement("summary");
    const fate = element("span", error.final ? "quarantined" : `try ${error.attempt} failed`, error.final ? "final" : "");
    const where = element("small", ` ${new Date(1000 * error.time_s).toLocaleTimeString()}, ${error.volume}, ${error.stage}, ${error.place}`);
    line.append(fate, where, document.createElement("br"), error.message);
    entry.append(line, element("pre", error.traceback));
    one("errors").prepend(entry);
  }
  while (one("errors").children.length > 50) one("errors").lastElementChild.remove();
  one("error-section").hidden = one("errors").children.length === 0;
};

const showJobs = (jobs, job) => {
  one("jobs").hidden = jobs.length < 2;
  const choice = one("job");
  if (jobs.length < 2 || choice.options.length === jobs.length) return;
  choice.replaceChildren(...jobs.map(({ id, name, state }) => new Option(`${name} (${state})`, id, false, id === job.id)));
};

// Start anew: another job, or another scheduler in the place of the last.
const forget = (job) => {
  Object.assign(view, { job, shown: null, volumes: new Map(), errors: [] });
  view.maps.clear();
  chips.clear();
  for (const id of ["maps", "volumes", "errors"]) one(id).replaceChildren();
};

const show = (state) => {
  const { job } = state;
  document.querySelector("main").hidden = !job;
  if (!job) {
    one("verdict").textContent = "No job has run on this scheduler yet";
    return;
  }
  if (view.job !== job.id) {
    const late = view.since > 0;
    forget(job.id);
    if (late) { // the answer had only what changed since another job's
      view.since = 0;
      return poll();
    }
  }
  if (view.since === 0) one("errors").replaceChildren();
  view.since = state.changes;
  showJobs(state.jobs, job);
  showTop(job);
  showWarnings(job);
  showVolumes(job);
  showFigures(job);
  showMaps(job);
  showStages(job);
  showWorkers(state.workers, job.count > 1);
  showErrors(job);
  document.documentElement.dataset.changes = state.changes;
};

const lost = () => {
  const item = element("li", `Connection lost at ${new Date().toLocaleTimeString()}: the run has ended, or its scheduler is out of reach. What stands below is the last that was seen. On a terminal, nx47dask status RUN says how it ended. `);
  const again = element("button", "Try again", "again");
  again.type = "button";
  again.addEventListener("click", () => {
    view.failed = 0;
    item.remove();
    poll();
  });
  item.append(again);
  one("warnings").prepend(item);
  if (!one("state").hidden) {
    one("state").textContent = "Connection lost";
    one("state").className = "";
  }
};

let timer = null;
let asking = false;
const poll = async () => {
  clearTimeout(timer);
  if (asking) {
    timer = setTimeout(poll, 100);
    return;
  }
  asking = true;
  const query = new URLSearchParams({ since: view.since });
  if (one("job").value) query.set("job", one("job").value);
  if (view.wanted) query.set("volume", view.wanted);
  if (view.shown) query.set("shown", view.shown);
  let state = null;
  try {
    const answer = await fetch(`nx47dask/state.json?${query}`, { signal: AbortSignal.timeout(10000) });
    if (answer.ok) state = await answer.json();
  } catch { /* counted below */ }
  asking = false;
  view.failed = state ? 0 : view.failed + 1;
  if (view.failed >= PATIENCE) return lost();
  timer = setTimeout(poll, EVERY_MS);
  if (state) show(state);
};

const redraw = () => {
  for (const map of view.maps.values()) if (map.figure.isConnected) map.draw();
  for (const [index, key] of [...one("legend").children].entries()) drawKey(key.firstElementChild, LEGEND[index]);
};
one("job").addEventListener("change", () => {
  view.since = 0;
  view.wanted = null;
  poll();
});
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (view.failed < PATIENCE) poll();
});
poll();

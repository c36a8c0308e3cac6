// The console's page: follows the stream of figures and writes them into the page. Text is set as text, never as HTML.
import { ratesChart, scoresChart } from "./charts.js";

const WINDOW_S = 300;
const RECENT_S = 10;
const MINUTE_S = 60;
const DEGRADED_SHARE = 0.01;
const BUDGETS_MS = 10_000;
const SILENT_MS = 5_000;
const STATES = { calm: "Calm", surge: "Surge of people", attack: "Under attack", unsure: "Unsure" };
const MODES = { shadow: "shadow: enforces nothing", enforce: "enforcing", mixed: "enforcing on some routes" };
const DRIFT = { steady: "steady", watch: "watch", drift: "drift", unresolved: "unresolved" };

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const count = (value) => (value >= 10 ? whole : tenth).format(value);
const share = (value) => (value === null || value === undefined ? "–" : `${tenth.format(100 * value)} %`);
const words = (name) => name.replaceAll("_", " ");
const clock = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ") + " UTC";

// Only what has changed is written, so that a screen reader is told once and a selection stays.
function say(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

let paused = false;
let stream = null;
let heard = 0;
let seconds = [];
let rates = null;
let scores = null;

function showRates() {
  const shown = seconds.slice(-WINDOW_S);
  rates ??= ratesChart($("rates"));
  rates.setData([0, 1, 2, 3].map((column) => shown.map((second) => second[column])));
  const recent = seconds.slice(-RECENT_S);
  const mean = (column) => recent.reduce((sum, second) => sum + second[column], 0) / Math.max(recent.length, 1);
  const [allow, challenge, block] = [1, 2, 3].map(mean);
  say("rate", count(allow + challenge + block));
  say("rate-allow", count(allow));
  say("rate-challenge", count(challenge));
  say("rate-block", count(block));
  $("rates").setAttribute("aria-label", "Decisions a second over the last five minutes. In the mean of the last ten seconds: "
    + `allow ${count(allow)}, challenge ${count(challenge)}, block ${count(block)}.`);
}

function showVerdict(situation) {
  $("verdict").dataset.state = situation.state;
  say("state", STATES[situation.state] ?? situation.state);
  say("since", situation.since ? `since ${clock(situation.since)}` : "");
  const evidence = $("evidence");
  const key = situation.evidence.join("\n");
  if (evidence.dataset.key !== key) evidence.replaceChildren(...list(situation.evidence).children);
  evidence.dataset.key = key;
  const before = situation.changes.slice(1, 4).map((change) => `${words(change.state)} from ${clock(change.since)}`);
  say("changes", before.length ? `Before: ${before.join(", ")}.` : "");
}

function showTiles(now) {
  say("acted", share(now.acted_share));
  say("load", share(now.load));
  say("flight", `${whole.format(now.totals.in_flight)} in flight`);
  say("solved", share(now.challenges.rate));
  say("solved-of", `${whole.format(now.challenges.solved)} of ${whole.format(now.challenges.puzzles)}; ${whole.format(now.challenges.refused)} refused`);
  say("waits", whole.format(now.challenges.waits));
  say("waits-of", `of ${whole.format(now.challenges.issued)} challenges`);
  const challenger = now.challenger;
  say("apart", challenger === null ? "none" : share(challenger.rate));
  say("apart-of", challenger === null ? "no challenger is loaded" : `${whole.format(challenger.apart)} of ${whole.format(challenger.compared)}`);
  say("drift", now.drift.known ? DRIFT[now.drift.verdict] : "not yet");
  say("drift-of", `${whole.format(now.drift.clients)} clients`);
  say("mode", MODES[now.mode] ?? now.mode);
  $("warming").hidden = !now.warming_up || now.mode === "shadow";
}

// What /status calls degraded: the fail mode answers, and nobody is kept out by it.
function showFailing() {
  const minute = seconds.slice(-MINUTE_S);
  const sum = (column) => minute.reduce((total, second) => total + (second[column] ?? 0), 0);
  const part = sum(4) / Math.max(sum(1) + sum(2) + sum(3), 1);
  $("failing").hidden = part < DEGRADED_SHARE;
  say("failing", part < DEGRADED_SHARE ? "" : `the fail mode answers: ${share(part)} of the last minute`);
}

function showTotals(totals) {
  for (const verdict of ["allow", "challenge", "block"]) {
    say(`decided-${verdict}`, whole.format(totals.decided[verdict]));
    say(`enforced-${verdict}`, whole.format(totals.enforced[verdict]));
  }
  say("failed", whole.format(totals.failed));
  say("rejected", whole.format(totals.rejected));
  say("in-flight", whole.format(totals.in_flight));
}

// A cell: its label for narrow screens, its content, and whether it is a number ("n") or "long".
function cell(label, content, type = "", kind = "td") {
  const made = document.createElement(kind);
  made.dataset.label = label;
  if (kind === "th") made.scope = "row";
  made.className = type;
  const inner = document.createElement("span");
  inner.append(...[content].flat());
  made.append(inner);
  return made;
}

function list(lines) {
  const made = document.createElement("ul");
  made.append(...lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
  return made;
}

// Where a finger has tapped, some browsers say for ever that it hovers.
const INSIDE = matchMedia("(hover: hover)").matches ? ":focus-within, :hover" : ":focus-within";

// Rows are made anew only where something has changed, and not while somebody is in the table with the keyboard or the mouse.
function fill(id, content, cellsOf) {
  const [table, none, key] = [$(id), $(`no-${id}`), JSON.stringify(content)];
  if (table.dataset.key === key || table.matches(INSIDE)) return;
  table.dataset.key = key;
  if (none) none.hidden = content.length > 0;
  table.hidden = content.length === 0;
  table.tBodies[0].replaceChildren(...content.map(cellsOf).map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  }));
}

function showClients(clients) {
  fill("clients", clients, (one) => {
    const link = document.createElement("a");
    link.href = `/console/clients/${one.client}`;
    link.textContent = one.kind === "address" && one.address ? one.address : `${one.kind} ${one.client}`;
    const from = one.kind === "account" && one.address ? ` from ${one.address}` : "";
    return [
      cell("Client", [link, from], "wrap", "th"),
      cell("Acted on", count(one.acted), "n"),
      cell("Of", count(one.asked), "n"),
      cell("Lowest score", String(one.score), "n"),
      cell("Family", words(one.family)),
      cell("Reasons", one.reasons.join(", "), "long"),
    ];
  });
}

// What hardly any of them share says nothing but how many there are.
const shared = (mark) => (mark.share >= 0.1 ? `${share(mark.share)} ${mark.what} ${mark.value}` : `${whole.format(mark.values)} ${mark.what}s`);

function showCampaigns(campaigns) {
  fill("campaigns", campaigns, (one) => [
    cell("Family", words(one.family), "wrap", "th"),
    cell("Clients", whole.format(one.clients), "n"),
    cell("Acted on", count(one.acted), "n"),
    cell("Reasons", one.reasons.join(", "), "long"),
    cell("Shared", list(one.shares.map(shared)), "long wrap"),
  ]);
}

function showScores(histogram) {
  scores ??= scoresChart($("scores"), histogram.width);
  const part = (counts) => {
    const total = counts.reduce((sum, value) => sum + value, 0);
    return counts.map((value) => (total && value ? value / total : null));
  };
  const [recent, hour] = [part(histogram.recent), part(histogram.hour)];
  const starts = recent.map((_, place) => place * histogram.width);
  scores.setData([[...starts, 100], [...recent, null], [...hour, hour.at(-1)]]);
  const low = recent.slice(0, 4).reduce((sum, value) => sum + value, 0);
  const usual = hour.slice(0, 4).reduce((sum, value) => sum + value, 0);
  $("scores").setAttribute("aria-label", `Share of requests by score. A score of 20 or less: ${share(low)} of the last five minutes, ${share(usual)} of the last hour.`);
}

function showDrift(drift) {
  say("drift-say", drift.known
    ? `Verdict: ${DRIFT[drift.verdict]}, from ${whole.format(drift.clients)} clients of about a day. The index is the population stability index; only beyond what chance could make does it count.`
    : `Nothing is said yet: it takes an hour after an empty start, twenty clients or more, and a bundle with reference histograms. ${whole.format(drift.clients)} clients have been counted.`);
  fill("drifting", drift.known ? drift.features : [], (one) => [
    cell("Feature", one.name, "wrap", "th"), cell("What it is", one.meaning, "long"), cell("Index", one.psi.toFixed(3), "n"),
    cell("Chance could make", one.limit.toFixed(3), "n"), cell("State", one.state),
  ]);
}

// The badge says what is so: a stream can be silent without being closed.
function showLink() {
  const lost = stream.readyState !== EventSource.OPEN || Date.now() - heard > SILENT_MS;
  say("link", lost ? "connection lost: what you see is old" : paused ? "paused" : "live");
  $("link").classList.toggle("alarm", lost);
}

function show(now) {
  heard = Date.now();
  if (now.second !== null && now.second[0] !== seconds.at(-1)?.[0]) seconds = [...seconds, now.second].slice(-900);
  if (paused) return;
  showVerdict(now.situation);
  showRates();
  showTiles(now);
  showFailing();
  showTotals(now.totals);
  showClients(now.clients);
  showCampaigns(now.campaigns);
  showScores(now.scores);
  showDrift(now.drift);
  document.documentElement.dataset.shown = now.time;
}

function follow() {
  stream?.close();
  stream = new EventSource("/console/events");
  heard = Date.now();
  stream.addEventListener("open", showLink);
  stream.addEventListener("history", ({ data }) => { seconds = JSON.parse(data); });
  stream.addEventListener("now", ({ data }) => show(JSON.parse(data)));
  stream.addEventListener("error", () => {
    showLink();
    if (stream.readyState === EventSource.CLOSED) setTimeout(resume, 3000);
  });
}

// A stream that was refused is not tried again by the browser: the session may have ended.
async function resume() {
  try {
    const answer = await fetch("/console/budgets");
    if (answer.status === 401) {
      location.assign("/console/sign-in");
      return;
    }
  } catch {
    // The service is away: try again.
  }
  follow();
}

const percent = (budget) => (budget === 0 ? "nothing" : `${Number((100 * budget).toPrecision(2))} %`);
const sliders = { challenge: $("challenge-budget"), block: $("block-budget") };
let budgets = null;

// As set: the smallest budget that acts at least as soon as the threshold in force.
function placeOf(threshold) {
  if (threshold === null) return 0;
  const found = budgets.steps.findIndex((step) => step.threshold !== null && step.threshold <= threshold);
  return found < 0 ? budgets.steps.length - 1 : found;
}

function showBudgets() {
  const { steps, now, requests } = budgets;
  const chosen = { challenge: steps[sliders.challenge.value], block: steps[sliders.block.value] };
  say("challenge-share", percent(chosen.challenge.budget));
  say("block-share", percent(chosen.block.budget));
  for (const name of ["challenge", "block"]) {
    const step = chosen[name];
    sliders[name].setAttribute("aria-valuetext", `${percent(step.budget)}; ${whole.format(step.at)} requests of the last hour`);
  }
  const rows = { now: [now.challenge.at, now.block.at], then: [chosen.challenge.at, chosen.block.at] };
  for (const [name, [challenge, block]] of Object.entries(rows)) {
    say(`${name}-challenge`, whole.format(Math.max(challenge - block, 0)));
    say(`${name}-block`, whole.format(block));
    say(`${name}-allow`, whole.format(requests - Math.max(challenge, block)));
  }
}

async function loadBudgets() {
  try {
    const answer = await fetch("/console/budgets");
    if (!answer.ok) return;
    const first = budgets === null;
    if (paused && !first) return;
    budgets = await answer.json();
    for (const [name, slider] of Object.entries(sliders)) {
      slider.max = budgets.steps.length - 1;
      slider.disabled = budgets.steps.length < 2;
      if (first) slider.value = placeOf(budgets.now[name].threshold);
    }
    showBudgets();
  } catch {
    // The stream says that the connection is lost.
  }
}

// A block budget above the challenge budget makes no sense: the other slider follows.
sliders.challenge.addEventListener("input", () => {
  if (Number(sliders.block.value) > Number(sliders.challenge.value)) sliders.block.value = sliders.challenge.value;
  showBudgets();
});
sliders.block.addEventListener("input", () => {
  if (Number(sliders.challenge.value) < Number(sliders.block.value)) sliders.challenge.value = sliders.block.value;
  showBudgets();
});
for (const slider of Object.values(sliders)) {
  slider.addEventListener("change", () => {
    const [challenge, block] = [$("then-challenge").textContent, $("then-block").textContent];
    say("budgets-say", `With these budgets ${challenge} requests would have been challenged and ${block} blocked.`);
  });
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  showLink();
});

follow();
loadBudgets();
setInterval(loadBudgets, BUDGETS_MS);
setInterval(() => {
  if (stream.readyState === EventSource.OPEN && Date.now() - heard > SILENT_MS) follow();
  showLink();
}, SILENT_MS);

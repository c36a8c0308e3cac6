// Runs the check of the challenge page: shows ALTCHA's widget, says in words what happens, sends the solution.
import "./altcha/altcha-3.2.2.min.js";

const WORKER = new URL("./altcha/pbkdf2-3.2.2.js", import.meta.url);
const ROUNDS = "botsieve rounds";
const ROUNDS_WINDOW_MS = 120_000;
const ROUNDS_MOST = 3;

const check = document.getElementById("check");
const status = document.getElementById("status");
const answer = document.getElementById("answer");
const solution = document.getElementById("solution");
const onward = document.getElementById("continue");
const again = document.getElementById("again");

const say = (text) => { status.textContent = text; };
const show = (button, visible) => { button.hidden = !visible; };

// Where the cookie is not kept, the site asks again after every solved check. Notice it instead of going round for ever.
function goesRound() {
  try {
    const recent = JSON.parse(sessionStorage.getItem(ROUNDS) ?? "[]").filter((time) => Date.now() - time < ROUNDS_WINDOW_MS);
    return recent.length >= ROUNDS_MOST;
  } catch {
    return false;
  }
}

function noteRound() {
  try {
    const rounds = JSON.parse(sessionStorage.getItem(ROUNDS) ?? "[]");
    sessionStorage.setItem(ROUNDS, JSON.stringify([...rounds, Date.now()].slice(-ROUNDS_MOST)));
  } catch {
    // Storage is switched off: the check itself does not need it.
  }
}

function obstacle() {
  if (!globalThis.isSecureContext || !globalThis.crypto?.subtle) {
    return "This check only works over a secure connection. Open the page with an address that begins with https.";
  }
  if (!navigator.cookieEnabled) {
    return "Cookies are switched off, so the site could not remember that you passed the check. Allow cookies for this site, then try again.";
  }
  if (goesRound()) {
    return "You have passed this check several times and are still asked. Cookies for this site may be blocked. Allow them, or wait some minutes, then try again.";
  }
  return null;
}

function makeWidget() {
  globalThis.$altcha.algorithms.set("PBKDF2/SHA-256", () => new Worker(WORKER));
  globalThis.$altcha.i18n.set("en", {
    ...globalThis.$altcha.i18n.get("en"),
    label: "Check this browser",
    verifying: "Working it out…",
    verified: "Checked",
    error: "That did not work.",
  });
  const widget = document.createElement("altcha-widget");
  widget.setAttribute("challenge", check.dataset.challenge);
  widget.setAttribute("type", "checkbox");
  widget.setAttribute("language", "en");
  widget.setAttribute("configuration", JSON.stringify({ hideFooter: true, hideLogo: true, humanInteractionSignature: false }));
  return widget;
}

function follow(widget) {
  widget.addEventListener("statechange", ({ detail }) => {
    show(again, detail.state === "error" || detail.state === "expired");
    if (detail.state === "verifying") say("Working it out. This usually takes a few seconds.");
    if (detail.state === "error" || detail.state === "expired") {
      say("The check could not be finished. Press “Try again”. If that does not help, open the page you wanted once more.");
    }
  });
  widget.addEventListener("verified", ({ detail }) => {
    noteRound();
    solution.value = detail.payload;
    show(onward, true);
    say("Done. Taking you on. If nothing happens, press “Continue”.");
    answer.requestSubmit();
  });
}

function begin() {
  const widget = makeWidget();
  const start = () => { show(again, false); widget.verify(); };
  follow(widget);
  again.addEventListener("click", () => { sessionStorage.removeItem(ROUNDS); start(); });
  check.hidden = false;
  const reason = obstacle();
  if (reason !== null) {
    say(reason);
    show(again, globalThis.isSecureContext);
  } else {
    widget.addEventListener("load", start, { once: true });
  }
  document.getElementById("widget").append(widget);
}

begin();

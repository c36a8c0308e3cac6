// Waits on the page that says there is no room: asks again in the background, and leaves the page only for another answer,
// because one that loads itself anew takes away the place of whoever is reading it.
const WAITING = "Waiting for room. This page tries again by itself.";
const SILENT = "The site does not answer just now. This page tries again by itself.";

const status = document.getElementById("status");
const onward = document.getElementById("onward");
const next = document.getElementById("next");

// Only what has changed is written, so that a screen reader is told once, and not after each try.
const say = (text) => { if (status.textContent !== text) status.textContent = text; };
const sleep = (seconds) => new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });

// Seconds to wait on: 0 or no number where the answer is another one than that there is no room, or that the site is busy.
async function ask(seconds) {
  try {
    const answer = await fetch(onward.href, { headers: { Accept: "text/html" }, cache: "no-store", redirect: "manual" });
    const busy = answer.status === 429 || answer.status >= 500;
    if (answer.status !== 401 && !busy) return 0;
    say(busy ? SILENT : WAITING);
    return Number(answer.headers.get("Retry-After")) || (busy ? seconds : 0);
  } catch {
    say(SILENT);
    return seconds;
  }
}

async function wait(seconds) {
  say(WAITING);
  next.hidden = false;
  while (seconds > 0) {
    next.textContent = `Next try at ${new Date(Date.now() + 1000 * seconds).toTimeString().slice(0, 8)}.`;
    await sleep(seconds);
    seconds = await ask(seconds);
  }
  next.hidden = true;
  say("The wait is over. Taking you on. If nothing happens, press “Try now”.");
  location.replace(onward.href);
}

wait(Number(status.dataset.wait));

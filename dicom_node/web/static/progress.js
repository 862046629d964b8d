// Keeps the page of a study that is under way up to date. Without this script the page renews itself every 5 s.
"use strict";

const AGAIN_MS = 1500;
const box = document.querySelector("[data-progress]");

function show(steps) {
  if (!steps.length) {
    box.replaceChildren();
    return;
  }
  const list = document.createElement("ol");
  list.className = "steps";
  list.setAttribute("aria-label", "Steps");
  for (const { name, place } of steps) {
    const item = document.createElement("li");
    item.className = `step step-${place}`;
    item.textContent = name;
    if (place === "now") item.setAttribute("aria-current", "step");
    list.append(item);
  }
  box.replaceChildren(list);
}

async function ask() {
  let answer;
  try {
    answer = await fetch(box.dataset.progress, { headers: { Accept: "application/json" }, cache: "no-store" });
  } catch {
    setTimeout(ask, 4 * AGAIN_MS); // the node is away for a moment
    return;
  }
  if (!answer.ok) return; // signed out: the next click asks for the password
  const progress = await answer.json();
  if (progress.mark !== box.dataset.mark) {
    location.reload();
    return;
  }
  const now = JSON.stringify(progress.steps);
  if (now !== box.dataset.shown) {
    box.dataset.shown = now;
    show(progress.steps);
  }
  if (progress.under_way) setTimeout(ask, AGAIN_MS);
}

if (box) setTimeout(ask, AGAIN_MS);

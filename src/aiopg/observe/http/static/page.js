// The page: listens to what the store's side port tells (server-sent events), and shows it.

import { Awaited } from "./awaited.js";
import { Card } from "./card.js";
import { bytes, count, make, rate, say, waited } from "./text.js";

/** Waiting times move so often; drawings of three minutes need not. */
const TICK_MILLISECONDS = 250;
const DRAW_EACH = 4;

/** Of more groups than these one wants to choose. */
const FILTER_FROM = 6;

/** Of what is told while the page is paused. */
const SECONDS_KEPT = 500;

const byId = (id) => document.getElementById(id);

const cards = new Map();
const awaited = new Awaited();
let frame = null;
let heard = 0;
let isPaused = false;
let pending = null;
let ticks = 0;

/** The store's clock: that of the last frame, and what has passed since. */
function now() {
  return frame ? frame.now + (performance.now() - heard) / 1000 : 0;
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = cards.get(entry.target.id.replace("card-", ""));
    if (!card) continue;
    card.isSeen = entry.isIntersecting;
    if (card.isSeen && frame) {
      card.tick(now());
      card.draw(now());
    }
  }
});

// ------------------------------------------------------------------------------------------------------- what is told

function take(told) {
  frame = told;
  heard = performance.now();
  const changed = Object.entries(told.groups);
  for (const [key, data] of changed) {
    let card = cards.get(key);
    if (!card) {
      card = new Card(key);
      cards.set(key, card);
      watcher.observe(card.element);
    }
    card.update(data, told.now);
    if (card.isSeen) card.draw(told.now);
  }
  arrange(told.order);
  showTotals(told.store);
  show();
}

/** Put the cards in the order told, and forget those that are gone; nothing is moved that is in its place. */
function arrange(order) {
  const box = byId("groups");
  const here = new Set(order);
  for (const [key, card] of cards) {
    if (here.has(key)) continue;
    watcher.unobserve(card.element);
    card.element.remove();
    cards.delete(key);
  }
  const focused = box.contains(document.activeElement);
  order.forEach((key, place) => {
    const { element } = cards.get(key);
    // A card that is being read with the keyboard stays where it is.
    if (box.children[place] !== element && !focused) box.insertBefore(element, box.children[place] ?? null);
    else if (!element.isConnected) box.append(element);
  });
  box.dataset.many = order.length > 2;
  byId("filter-box").hidden = order.length < FILTER_FROM;
  byId("none").hidden = order.length > 0;
  byId("more").hidden = !frame.more;
  say(byId("more"), `${count(frame.more)} more groups are not shown; those that wait come first.`);
  filter();
}

function show() {
  const waits = frame.order
    .map((key) => [key, cards.get(key).data])
    .filter(([, group]) => group.rounds.length)
    .map(([key, group]) => [key, group, group.rounds[0]])
    .sort((one, other) => one[2].opened - other[2].opened);
  awaited.show(waits, frame.store, now());
  for (const card of cards.values()) card.tick(now());
}

function showTotals(store) {
  say(byId("url"), store.version ? `${store.version} at ${store.url}` : store.url);
  const totals = [
    [store.groups === 1 ? "group" : "groups", count(store.groups)],
    [store.members === 1 ? "member" : "members", count(store.members)],
    ["rounds/s", store.rate === null ? "–" : rate(store.rate)],
    ["held", bytes(store.bytes)],
    ["up", waited(Math.floor(Math.max(0, now() - store.began)))],
  ];
  const told = JSON.stringify(totals);
  const box = byId("totals");
  if (box.dataset.told === told) return;
  box.dataset.told = told;
  box.replaceChildren(...totals.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function filter() {
  const wanted = byId("filter").value.trim().toLowerCase();
  for (const card of cards.values()) {
    card.element.hidden = Boolean(wanted) && !card.data.name.toLowerCase().includes(wanted);
  }
}

// ---------------------------------------------------------------------------------------------------------- the link

function tellLink(is, text) {
  byId("link").dataset.is = is;
  say(byId("link-text"), text);
  document.body.classList.toggle("stale", is === "lost");
}

async function leaveIfRefused() {
  try {
    const answer = await fetch("/api/access", { redirect: "manual" });
    if (answer.status === 401) location.assign("/login");
  } catch {
    // Not reachable: the browser tries again by itself.
  }
}

function listen() {
  const events = new EventSource("/api/events");
  events.addEventListener("open", () => tellLink(isPaused ? "paused" : "live", isPaused ? "paused" : "live"));
  events.addEventListener("frame", (event) => {
    const told = JSON.parse(event.data);
    if (isPaused) {
      pending = pending ? joined(pending, told) : told;
      return;
    }
    tellLink("live", "live");
    take(told);
  });
  events.addEventListener("error", () => {
    tellLink("lost", "no connection");
    leaveIfRefused();
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
}

/** Two frames as one: of each group that is there what was told last, and all that was told of its last minutes. */
function joined(one, other) {
  const groups = {};
  for (const key of other.order) {
    const [before, after] = [one.groups[key], other.groups[key]];
    if (!before && !after) continue;
    groups[key] = after ?? before;
    if (before && after) after.seconds = [...before.seconds, ...after.seconds].slice(-SECONDS_KEPT);
  }
  return { ...other, groups };
}

function pause() {
  isPaused = !isPaused;
  const button = byId("pause");
  button.setAttribute("aria-pressed", String(isPaused));
  tellLink(isPaused ? "paused" : "live", isPaused ? "paused" : "live");
  if (!isPaused && pending) {
    const told = pending;
    pending = null;
    take(told);
  }
}

function tick() {
  if (!frame || isPaused || document.hidden || document.body.classList.contains("stale")) return;
  const at = now();
  awaited.tick(at);
  ticks += 1;
  for (const card of cards.values()) {
    card.tick(at);
    if (ticks % DRAW_EACH === 0) card.draw(at);
  }
  if (ticks % DRAW_EACH === 0) showTotals(frame.store);
}

async function begin() {
  byId("pause").addEventListener("click", pause);
  byId("filter").addEventListener("input", filter);
  byId("filter").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.target.value = "";
    filter();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const card of cards.values()) card.draw(now());
  });
  setInterval(tick, TICK_MILLISECONDS);
  listen();
  const answer = await fetch("/api/access");
  if (answer.ok) byId("leave").hidden = !(await answer.json()).asks_token;
}

begin();

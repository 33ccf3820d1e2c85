// Two drawings: how long the rounds of the last minutes took and who they waited for, and how long they take as a rule.
// What is drawn is said in words below it as well.

import { bound, count, duration } from "./text.js";

/** The last minutes, as the side port keeps them (`_timeline.py`). */
export const SECONDS = 180;

/** A straggler's second: so slow, and so much slower than others. */
const SLOW = 0.05;
const TIMES = 4;

const LABELS_MOST = 6;
const LETTERS = "11px system-ui, sans-serif";

/** A canvas of this height with its scale set for sharp lines, wiped; null while it is not laid out. */
function open(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = LETTERS;
  return { context, width, height };
}

function colours(canvas) {
  const style = getComputedStyle(canvas);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/** What is usual: three quarters are no less. Where there are few yet, one slow second must not be taken for it. */
function usual(numbers) {
  const sorted = [...numbers].sort((one, other) => one - other);
  return sorted.length ? sorted[Math.floor(sorted.length / 4)] : 0;
}

/** Which seconds had a straggler: [second, rounds, failed, slowest, rank, op]. */
function stragglers(seconds) {
  const least = Math.max(SLOW, TIMES * usual(seconds.map((second) => second[3])));
  return seconds.filter((second) => second[3] >= least);
}

/**
 * The last three minutes: a bar for each second, as high as its slowest round took (logarithmic), and an open one for
 * each round that waits now.
 */
export function drawTimeline(canvas, seconds, waiting, now) {
  const opened = open(canvas);
  if (!opened) return;
  const { context, width, height } = opened;
  const colour = colours(canvas);
  const base = height - 18;
  const left = 54;
  const slowest = Math.max(0.1, ...seconds.map((s) => s[3]), ...waiting.map((one) => now - one.opened));
  const [low, high] = [Math.log10(0.0002), Math.log10(slowest * 1.6)];
  const x = (at) => left + ((at - now + SECONDS) / SECONDS) * (width - left - 4);
  const y = (took) => base - ((Math.log10(Math.max(took, 0.0003)) - low) / (high - low)) * (base - 16);

  context.lineWidth = 1;
  context.textBaseline = "middle";
  for (const tick of [0.001, 0.01, 0.1, 1, 10, 100, 1000]) {
    if (Math.log10(tick) > high || (high - low > 5 && Math.log10(tick) % 2)) continue;
    context.strokeStyle = colour("line");
    line(context, left, y(tick), width, y(tick));
    context.fillStyle = colour("soft");
    context.textAlign = "right";
    context.fillText(bound(tick), left - 6, y(tick));
  }
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  for (const ago of [180, 120, 60, 0]) {
    context.textAlign = ago === 0 ? "right" : ago === 180 ? "left" : "center";
    context.fillText(ago ? `${ago / 60} min ago` : "now", x(now - ago), height - 3);
  }

  const marked = new Set(stragglers(seconds));
  const step = Math.max(1.5, (width - left) / SECONDS - 1);
  for (const second of seconds) {
    if (second[0] < now - SECONDS) continue;
    const top = y(second[3]);
    context.fillStyle = second[2] ? colour("lost") : marked.has(second) ? colour("awaited") : colour("bar");
    context.fillRect(x(second[0]), top, step, base - top);
    if (second[2]) cross(context, x(second[0]) + step / 2, top - 6, colour("lost"));
  }
  for (const one of waiting) {
    const from = Math.max(left, x(one.opened));
    const top = y(now - one.opened);
    context.fillStyle = colour("awaited");
    context.globalAlpha = 0.35;
    context.fillRect(from, top, x(now) - from, base - top);
    context.globalAlpha = 1;
    context.fillRect(from, top, Math.max(3, x(now) - from), 3);
  }
  name(context, [...marked], waiting, { x, y, now, left, width, colour });
}

/** Write whose fault the highest ones are, as far as there is room for it. */
function name(context, marked, waiting, { x, y, now, left, width, colour }) {
  const labels = waiting
    .filter((one) => one.who)
    .slice(0, 1)
    .map((one) => ({ at: x(now), y: y(now - one.opened), text: one.who, align: "right" }));
  for (const second of marked.sort((one, other) => other[3] - one[3])) {
    labels.push({ at: x(second[0]), y: y(second[3]), text: `rank ${second[4]}`, align: "center" });
  }
  const taken = [];
  context.fillStyle = colour("awaited-text");
  for (const label of labels) {
    if (taken.length >= LABELS_MOST) break;
    const wide = context.measureText(label.text).width + 10;
    const from = Math.min(
      Math.max(label.align === "right" ? label.at - wide : label.at - wide / 2, left),
      width - wide,
    );
    if (taken.some(([start, end]) => from < end && from + wide > start)) continue;
    taken.push([from, from + wide]);
    context.textAlign = "left";
    context.fillText(label.text, from + 5, Math.max(11, label.y - 5));
  }
}

/** How long rounds take, from half a millisecond to five minutes: a bar for each bound. */
export function drawHistogram(canvas, { bounds, counts }) {
  const opened = open(canvas);
  if (!opened) return;
  const { context, width, height } = opened;
  const colour = colours(canvas);
  const base = height - 18;
  const most = Math.max(1, ...counts);
  const step = width / counts.length;
  context.strokeStyle = colour("line");
  line(context, 0, base, width, base);
  context.textAlign = "center";
  counts.forEach((number, place) => {
    if (number) {
      // A square root: one slow round of a thousand is still seen.
      const high = Math.max(2, Math.sqrt(number / most) * (base - 14));
      context.fillStyle = colour("bar");
      context.fillRect(place * step + 1, base - high, step - 2, high);
    }
  });
  context.fillStyle = colour("soft");
  for (const place of width < 260 ? [1, 7, 13] : [1, 4, 7, 10, 13]) {
    context.fillText(bound(bounds[place]), (place + 1) * step, height - 3);
  }
}

/** "half within 1 ms, 99% within 25 ms" of so many; empty of none. */
export function inWords({ bounds, counts }) {
  const total = counts.reduce((sum, number) => sum + number, 0);
  if (!total) return "no round was seen from its beginning to its end yet";
  return `half within ${within(bounds, counts, total * 0.5)}, 99% within ${within(bounds, counts, total * 0.99)}; ${count(total)} seen`;
}

function within(bounds, counts, due) {
  let seen = 0;
  for (const [place, number] of counts.entries()) {
    seen += number;
    if (seen >= due) return place < bounds.length ? bound(bounds[place]) : "more than that";
  }
  return "";
}

/** The slowest of the last minutes in words. */
export function slowestInWords(seconds, now) {
  const worst = stragglers(seconds).reduce((one, other) => (one && one[3] >= other[3] ? one : other), null);
  if (worst) return `slowest: ${duration(worst[3])}, ${Math.round(now - worst[0])} s ago, rank ${worst[4]} came last`;
  return seconds.length ? "no stragglers in the last three minutes" : "no round ended in the last three minutes";
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, Math.round(y1) + 0.5);
  context.lineTo(x2, Math.round(y2) + 0.5);
  context.stroke();
}

function cross(context, x, y, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x - 3, y - 3);
  context.lineTo(x + 3, y + 3);
  context.moveTo(x + 3, y - 3);
  context.lineTo(x - 3, y + 3);
  context.stroke();
  context.lineWidth = 1;
}

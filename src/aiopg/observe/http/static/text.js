// Numbers, times and ranks as people read them; and elements, whose text is only ever text.

/** An element: `make("p", { class: "x" }, "text", child)`. What is given as text stays text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A text that strangers chose: it does not turn round what stands beside it. */
export function said(text) {
  return make("bdi", { class: "said" }, String(text));
}

/** Set the text of an element, if it is another one. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** "0.4 ms", "12 ms", "3.4 s", "2 min 5 s", "3 h 4 min". */
export function duration(seconds) {
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(seconds < 0.001 ? 2 : 1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return long(seconds);
}

/** The same, in steps that do not flicker: whole seconds but for the first ten. */
export function waited(seconds) {
  if (seconds < 10 && !Number.isInteger(seconds)) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  return long(seconds);
}

function long(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} days`;
}

/** A bound of a histogram: "500 us" is "0.5 ms". */
export function bound(seconds) {
  if (seconds < 1) return `${seconds * 1000} ms`;
  return seconds < 60 ? `${seconds} s` : `${seconds / 60} min`;
}

const groups = new Intl.NumberFormat("en");

/** "12,345" */
export function count(number) {
  return groups.format(number);
}

/** "1 rank", "3 ranks" */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A rate: "0.4", "12", "1,234". */
export function rate(number) {
  return number < 10 ? number.toFixed(1) : count(Math.round(number));
}

/** "0 B", "12.3 KiB" */
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (number >= 1024 && step < units.length - 1) {
    number /= 1024;
    step += 1;
  }
  return `${step && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[step]}`;
}

/** Ranks of runs: "0-2,7" is 0, 1, 2 and 7. */
export function* ranksOf(runs) {
  if (!runs) return;
  for (const run of runs.split(",")) {
    const [first, last = first] = run.split("-").map(Number);
    for (let rank = first; rank <= last; rank += 1) yield rank;
  }
}

/** Runs for people: "rank 5", "ranks 0–3, 7 and 12 more". */
export function named(runs, total, most = 6) {
  if (!runs) return "nobody";
  const parts = runs.split(",");
  let shown = 0;
  for (const run of parts.slice(0, most)) {
    const [first, last = first] = run.split("-").map(Number);
    shown += last - first + 1;
  }
  const list = parts.slice(0, most).join(", ").replaceAll("-", "–");
  const rest = total - shown;
  return `${total === 1 ? "rank" : "ranks"} ${list}${rest > 0 ? ` and ${count(rest)} more` : ""}`;
}

/** A round by its call, and by its number where it has one: "barrier() #7". */
export function called(round) {
  return [said(round.call), round.number > 0 ? ` #${round.number}` : ""];
}

/** The first letter as at the beginning of a line. */
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

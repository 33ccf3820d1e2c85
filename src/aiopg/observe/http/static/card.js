// One group: its ranks, the rounds that wait, the last minutes, how long rounds take.

import { SECONDS, drawHistogram, drawTimeline, inWords, slowestInWords } from "./charts.js";
import { RankGrid } from "./ranks.js";
import { bytes, called, capital, count, counted, duration, make, named, rate, said, say, waited } from "./text.js";

export class Card {
  #data = null;
  #seconds = new Map();
  #grid = new RankGrid();
  #ages = [];

  constructor(key) {
    const head = `group-${key}`;
    this.title = make("h3", { id: head });
    this.state = make("span", { class: "state" });
    this.facts = make("p", { class: "facts" });
    this.rounds = make("tbody");
    this.table = make(
      "table",
      { class: "rounds", hidden: true },
      make("caption", {}, "Rounds that wait"),
      make(
        "thead",
        {},
        make("tr", {}, ...["Call", "Missing", "There", "For"].map((text) => make("th", { scope: "col" }, text))),
      ),
      this.rounds,
    );
    this.moreRounds = make("p", { class: "caption", hidden: true });
    this.timeline = make("canvas", { class: "timeline", "aria-hidden": "true" });
    this.timelineWords = make("figcaption", { class: "caption" });
    this.histogram = make("canvas", { class: "histogram", "aria-hidden": "true" });
    this.histogramWords = make("figcaption", { class: "caption" });
    this.slowest = make("p", { class: "caption slowest", hidden: true });
    this.element = make(
      "article",
      { class: "card", id: `card-${key}`, "aria-labelledby": head, tabindex: "-1" },
      make("header", {}, this.title, this.state, this.facts),
      this.table,
      this.moreRounds,
      this.#grid.element,
      make(
        "div",
        { class: "charts" },
        make("figure", {}, make("h4", {}, "The last three minutes"), this.timeline, this.timelineWords),
        make("figure", {}, make("h4", {}, "From first to last arrival"), this.histogram, this.histogramWords, this.slowest),
      ),
    );
    this.isSeen = false;
    this.#grid.about = (rank) => {
      const [, holder, reason] = this.#data.who[rank] ?? [];
      return [holder, reason].filter(Boolean).join(", ");
    };
  }

  get data() {
    return this.#data;
  }

  /** Take what is new; what is drawn follows in `draw`. */
  update(data, now) {
    this.#data = data;
    for (const second of data.seconds) this.#seconds.set(second[0], second);
    for (const at of this.#seconds.keys()) if (at < now - SECONDS) this.#seconds.delete(at);
    if (this.title.dataset.name !== data.name) {
      this.title.dataset.name = data.name;
      this.title.replaceChildren(said(data.name));
    }
    this.element.classList.toggle("waits", data.rounds.length > 0);
    this.state.dataset.state = data.state;
    say(this.state, data.state);
    say(this.facts, this.#factsText(data));
    this.#showRounds(data);
    this.#grid.show(data.ranks, data.rounds[0]?.missing ?? "");
    say(this.histogramWords, capital(inWords(data.latency)));
    const [worst] = data.slowest;
    this.slowest.hidden = !worst || worst[1] < 0.001;
    if (worst) say(this.slowest, `Latest of late: rank ${worst[0]}, ${duration(worst[1])} behind the first`);
  }

  #factsText(data) {
    const parts = [counted(data.world_size, "rank"), `life ${count(data.incarnation)}`];
    if (data.rate) parts.push(`${rate(data.rate)} rounds/s`);
    if (data.message_rate) parts.push(`${rate(data.message_rate)} messages/s`);
    if (data.messages) parts.push(`${counted(data.messages, "message")} waiting`);
    if (data.bytes) parts.push(bytes(data.bytes));
    return parts.join(" · ");
  }

  #showRounds(data) {
    this.table.hidden = data.rounds.length === 0;
    this.moreRounds.hidden = data.more_rounds === 0;
    say(this.moreRounds, `and ${counted(data.more_rounds, "round")} more`);
    const told = JSON.stringify(data.rounds);
    if (this.rounds.dataset.told === told) return;
    this.rounds.dataset.told = told;
    this.#ages = data.rounds.map((round) => [make("td", { class: "age" }), round.opened]);
    this.rounds.replaceChildren(
      ...data.rounds.map((round, place) => {
        const there = data.world_size - round.missing_count;
        const tag = round.tag === 0 ? [] : [" tag ", said(round.tag)];
        return make(
          "tr",
          {},
          make("th", { scope: "row" }, ...called(round), ...tag),
          make("td", { class: "missing" }, named(round.missing, round.missing_count)),
          make("td", {}, `${count(there)} of ${count(data.world_size)}`),
          this.#ages[place][0],
        );
      }),
    );
  }

  /** What changes with time alone; the charts only where they are seen. */
  tick(now) {
    if (!this.isSeen) return;
    for (const [cell, opened] of this.#ages) say(cell, waited(now - opened));
  }

  draw(now) {
    if (!this.isSeen || !this.#data) return;
    const seconds = [...this.#seconds.values()];
    const waiting = this.#data.rounds.map((round) => ({
      opened: round.opened,
      who: named(round.missing, round.missing_count, 2),
    }));
    drawTimeline(this.timeline, seconds, waiting, now);
    drawHistogram(this.histogram, this.#data.latency);
    say(this.timelineWords, capital(slowestInWords(seconds, now)));
  }
}

// What stands on top: whom everybody waits for, and for how long already.

import { called, capital, count, counted, make, named, rate, said, say, waited } from "./text.js";

const OTHERS_MOST = 5;
const NAMED_MOST = 3;

/** Characters that fit the line in large letters. */
const LONG = 14;

const STATES = {
  joined: "is connected",
  away: "its connection is away",
  lost: "was lost",
  left: "left",
  absent: "has not joined",
};

const byId = (id) => document.getElementById(id);

export class Awaited {
  #told = "";
  #ages = [];

  constructor() {
    this.box = byId("awaited");
    this.who = byId("who");
    this.howLong = byId("how-long");
    this.what = byId("what");
    this.holders = byId("holders");
    this.others = byId("others");
  }

  /** `waits`: [key, group, its oldest round] of every group that waits, the longest first. */
  show(waits, store, now) {
    const told = JSON.stringify(waits.map(([key, group, round]) => [key, round, group.who, group.name]));
    if (told !== this.#told) {
      this.#told = told;
      if (waits.length) this.#tell(waits);
      else this.#rest();
    }
    if (!waits.length) say(this.what, this.#allIsWell(store));
    this.tick(now);
  }

  tick(now) {
    for (const [element, since, before, behind] of this.#ages) say(element, before + waited(now - since) + behind);
    const longest = this.#ages.length ? now - this.#ages[0][1] : 0;
    document.title = this.#ages.length ? `${this.who.textContent}, ${waited(Math.floor(longest))} · aiopg` : "aiopg";
  }

  #tell(waits) {
    const [[key, group, round], ...others] = waits;
    const there = group.world_size - round.missing_count;
    this.box.dataset.mood = "waiting";
    say(this.who, capital(named(round.missing, round.missing_count, 4)));
    this.who.toggleAttribute("data-long", this.who.textContent.length > LONG);
    this.what.replaceChildren(
      make("a", { href: `#card-${key}` }, said(group.name)),
      ` waits in `,
      make("strong", {}, ...called(round)),
      `; ${count(there)} of ${count(group.world_size)} ${there === 1 ? "is" : "are"} there`,
    );
    this.#ages = [[this.howLong, round.opened, "for ", ""]];
    this.holders.replaceChildren(...Object.entries(group.who).slice(0, NAMED_MOST).map((one) => this.#holder(one)));
    this.others.replaceChildren(
      ...others.slice(0, OTHERS_MOST).map(([otherKey, other, its]) => {
        const age = make("span", { class: "age" });
        this.#ages.push([age, its.opened, "", ""]);
        return make(
          "li",
          {},
          make("a", { href: `#card-${otherKey}` }, said(other.name)),
          ` waits for ${named(its.missing, its.missing_count, 3)}, `,
          age,
        );
      }),
      ...(others.length > OTHERS_MOST ? [make("li", {}, `and ${counted(others.length - OTHERS_MOST, "group")} more`)] : []),
    );
  }

  /** Who an awaited rank is, and when it last made a call. */
  #holder([rank, [state, who, reason, heard]]) {
    const last = make("span", { class: "age" });
    if (heard !== null) this.#ages.push([last, heard, "; its last call was ", " ago"]);
    return make(
      "li",
      {},
      make("strong", {}, `rank ${rank}`),
      ` ${STATES[state]}`,
      ...(reason ? [": ", said(reason)] : []),
      last,
      ...(who ? [make("br"), said(who)] : []),
    );
  }

  #rest() {
    this.box.dataset.mood = "calm";
    say(this.who, "Nobody");
    say(this.howLong, "");
    this.#ages = [];
    this.holders.replaceChildren();
    this.others.replaceChildren();
  }

  #allIsWell(store) {
    if (!store.groups) return "No group is here yet.";
    const pace = store.rate ? `, ${rate(store.rate)} rounds a second` : "";
    return `${counted(store.groups, "group")} of ${counted(store.members, "member")}${pace}: whoever is called, comes.`;
  }
}


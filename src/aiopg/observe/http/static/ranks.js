// The ranks of a group as a grid: one stop of the Tab key, arrows within, and a line that says what the chosen one does.

import { count, make, ranksOf, say } from "./text.js";

/** Past it one cell stands for several ranks, and shows the worst of them. */
const CELLS_MOST = 2048;

/** In the order in which the legend has them. */
const WORDS = {
  j: "joined",
  a: "away",
  l: "lost",
  x: "left",
  ".": "not there",
};

/** In the order in which a cell for several ranks shows them. */
const WORST = "la.xj";

const BIG = 16;
const NUMBERED = 256;
/** In a row, as far as there is room for them; `ranks.css` decides. */
const COLUMNS = [100, 50, 25];

let grids = 0;

export class RankGrid {
  #cells = [];
  #shown = [];
  #per = 1;
  #size = 0;
  #letters = "";
  #awaited = new Set();
  #at = -1;
  #number = (grids += 1);

  constructor() {
    this.grid = make("div", { class: "ranks", role: "listbox", tabindex: "0", "aria-label": "Ranks" });
    this.legend = make("p", { class: "legend" });
    this.detail = make("p", { class: "detail", "aria-live": "polite" });
    this.element = make("div", { class: "ranks-box" }, this.grid, this.legend, this.detail);
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.grid.addEventListener("click", (event) => this.#choose(this.#cells.indexOf(event.target.closest(".rank"))));
    this.grid.addEventListener("pointerover", (event) => this.#look(this.#cells.indexOf(event.target.closest(".rank"))));
    this.grid.addEventListener("pointerleave", () => this.#look(this.#at));
    /** What is to be said of a rank besides its state; set by who owns the grid. */
    this.about = () => "";
  }

  /** Show these states, one letter a rank, and who is awaited (runs). */
  show(letters, runs) {
    if (letters.length !== this.#size) this.#build(letters.length);
    this.#letters = letters;
    this.#awaited = new Set(ranksOf(runs));
    const counts = { w: this.#awaited.size };
    for (let place = 0; place < this.#cells.length; place += 1) {
      const state = this.#state(place);
      if (state !== this.#shown[place]) this.#paint(place, state);
    }
    for (const letter of letters) counts[letter] = (counts[letter] ?? 0) + 1;
    this.#tell(counts);
    if (this.#at >= 0) this.#look(this.#at);
  }

  #build(size) {
    this.#size = size;
    this.#per = Math.ceil(size / CELLS_MOST);
    const cells = Math.ceil(size / this.#per);
    this.#shown = [];
    this.#at = -1;
    this.grid.dataset.size = size <= BIG ? "big" : size <= NUMBERED ? "numbered" : "small";
    this.#cells = Array.from({ length: cells }, (_, place) => {
      const cell = make("div", { class: "rank", role: "option", id: `rank-${this.#number}-${place}` });
      if (size <= NUMBERED) cell.append(make("span", { class: "number" }, String(place)));
      if (size <= BIG) cell.append(make("span", { class: "word" }));
      const each = COLUMNS.find((columns) => place % columns === 0);
      if (size > NUMBERED && each) {
        cell.dataset.row = String(place * this.#per);
        cell.dataset.each = String(each);
      }
      return cell;
    });
    this.grid.replaceChildren(...this.#cells);
    this.grid.removeAttribute("aria-activedescendant");
    this.grid.setAttribute("aria-label", `${count(size)} ranks; arrow keys go from one to the next`);
  }

  #ranks(place) {
    const first = place * this.#per;
    return [first, Math.min(first + this.#per, this.#size) - 1];
  }

  /** A letter, with a w behind it where the rank is awaited. */
  #state(place) {
    const [first, last] = this.#ranks(place);
    let letter = this.#letters[first];
    let awaited = this.#awaited.has(first);
    for (let rank = first + 1; rank <= last; rank += 1) {
      if (WORST.indexOf(this.#letters[rank]) < WORST.indexOf(letter)) letter = this.#letters[rank];
      awaited ||= this.#awaited.has(rank);
    }
    return awaited ? `${letter}w` : letter;
  }

  #paint(place, state) {
    const cell = this.#cells[place];
    this.#shown[place] = state;
    cell.dataset.state = state[0] === "." ? "absent" : state[0];
    cell.toggleAttribute("data-awaited", state.length > 1);
    cell.setAttribute("aria-label", this.#words(place));
    const word = cell.querySelector(".word");
    if (word) say(word, state.length > 1 ? "awaited" : WORDS[state[0]]);
  }

  #words(place) {
    const [first, last] = this.#ranks(place);
    const state = this.#shown[place];
    const who = first === last ? `rank ${first}` : `ranks ${first} to ${last}, at worst`;
    return `${who}: ${WORDS[state[0]]}${state.length > 1 ? ", awaited" : ""}`;
  }

  /** How many of each kind, with the sign that stands for it in the grid. */
  #tell(counts) {
    const kinds = [["w", "awaited"], ...Object.entries(WORDS)].filter(([letter]) => counts[letter]);
    const told = kinds.map(([letter, word]) => `${letter}${counts[letter]}${word}`).join();
    if (this.legend.dataset.told === told) return;
    this.legend.dataset.told = told;
    this.legend.replaceChildren(
      ...kinds.map(([letter, word]) => {
        const state = letter === "w" ? "j" : letter === "." ? "absent" : letter;
        const sign = make("span", { class: "rank sign", "data-state": state, "data-awaited": letter === "w" });
        return make("span", { class: "kind" }, sign, `${count(counts[letter])} ${word}`);
      }),
    );
  }

  #look(place) {
    if (place < 0 || place >= this.#cells.length) {
      if (this.#at < 0) say(this.detail, "");
      return;
    }
    const [first, last] = this.#ranks(place);
    const about = first === last ? this.about(first) : "";
    say(this.detail, this.#words(place) + (about ? `, ${about}` : ""));
  }

  #choose(place) {
    if (place < 0 || place >= this.#cells.length) return;
    this.#cells[this.#at]?.removeAttribute("aria-selected");
    this.#at = place;
    const cell = this.#cells[place];
    cell.setAttribute("aria-selected", "true");
    this.grid.setAttribute("aria-activedescendant", cell.id);
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.#look(place);
  }

  #key(event) {
    const top = this.#cells[0]?.offsetTop;
    const columns = Math.max(1, this.#cells.findIndex((cell) => cell.offsetTop !== top));
    const last = this.#cells.length - 1;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      Home: -last,
      End: last,
    };
    if (event.key === "Escape") {
      this.#cells[this.#at]?.removeAttribute("aria-selected");
      this.#at = -1;
      this.grid.removeAttribute("aria-activedescendant");
      say(this.detail, "");
      return;
    }
    if (!(event.key in steps)) return;
    event.preventDefault();
    const from = this.#at < 0 ? (steps[event.key] > 0 && event.key.startsWith("Arrow") ? -1 : 0) : this.#at;
    const to = this.#at < 0 && event.key.startsWith("Arrow") ? Math.max(from, 0) : from + steps[event.key];
    this.#choose(Math.min(last, Math.max(0, to)));
  }
}

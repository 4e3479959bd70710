// Maps of blocks on a canvas: the slices of a grid side by side, or a list in rows.

export const STATES = ["waiting", "retrying", "done", "repeated", "skipped", "quarantined"];
export const WORDS = ["waiting", "retrying", "done", "done after a retry", "skipped", "quarantined"];
export const RUNNING = STATES.length;
const QUARANTINED = 5;
const LARGEST = 14;
const HIGHEST = 420;
const HIGHEST_DONE = 150; // nothing happens there any more
const MARKED = 7; // smallest cell in pixels with a mark in it

const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const palette = () => ({
  fills: [...STATES, "running"].map(colourOf),
  mark: colourOf("mark"),
  edge: colourOf("edge"),
  ink: colourOf("soft"),
});

// Where the cells go: slices (tiles) of rows by columns, as large as the room allows.
const arrange = (grid, count, width, highest) => {
  if (!grid) {
    const size = Math.max(4, Math.min(LARGEST, Math.floor(Math.sqrt((width * 160) / Math.max(count, 1)))));
    return { size, rows: 1, columns: 1, across: Math.max(1, Math.floor(width / size)), gap: 0, tiles: count, left: 0 };
  }
  const [tiles, rows, columns] = grid;
  const left = tiles > 1 ? 34 : 0;
  let best;
  for (let size = LARGEST; size >= 2; size -= 1) {
    const gap = Math.max(3, size >> 1);
    const across = Math.floor((width - left + gap) / (columns * size + gap));
    best = { size, rows, columns, across: Math.max(1, Math.min(across, tiles)), gap, tiles, left };
    if (across >= 1 && Math.ceil(tiles / best.across) * (rows * size + gap) <= highest) break;
    if (across >= 1 && size <= (highest === HIGHEST ? 4 : 2)) break;
  }
  return best;
};

const place = (layout, number) => {
  const { size, rows, columns, across, gap, left } = layout;
  const tile = Math.floor(number / (rows * columns));
  const inside = number - tile * rows * columns;
  const y = Math.floor(tile / across) * (rows * size + gap) + Math.floor(inside / columns) * size;
  const x = left + (tile % across) * (columns * size + gap) + (inside % columns) * size;
  return [x, y];
};

const cell = (pen, colours, x, y, size, state) => {
  const inner = size - (size > 3 ? 1 : 0);
  pen.fillStyle = colours.fills[state];
  if (state === QUARANTINED) {
    pen.fillStyle = colours.edge; // stands out of the grid, whatever the colour
    pen.fillRect(x - 1, y - 1, inner + 2, inner + 2);
    pen.fillStyle = colours.fills[state];
    if (inner > 2) pen.fillRect(x, y, inner, inner);
  } else {
    pen.fillRect(x, y, inner, inner);
  }
  if (size < MARKED) return;
  pen.strokeStyle = pen.fillStyle = colours.mark;
  pen.lineWidth = Math.max(1.2, size / 8);
  const [a, b, middle] = [inner * 0.25, inner * 0.75, inner / 2];
  pen.beginPath();
  if (state === QUARANTINED) {
    pen.strokeStyle = "#ffffff";
    pen.moveTo(x + a, y + a); pen.lineTo(x + b, y + b); pen.moveTo(x + b, y + a); pen.lineTo(x + a, y + b);
    pen.stroke();
  } else if (state === RUNNING) {
    pen.arc(x + middle, y + middle, inner / 5, 0, 7); pen.fill();
  } else if (STATES[state] === "retrying") {
    pen.arc(x + middle, y + middle, inner / 4, 0.5, 5.5); pen.stroke();
  } else if (STATES[state] === "repeated") {
    pen.moveTo(x + a, y + middle); pen.lineTo(x + middle * 0.9, y + b); pen.lineTo(x + b, y + a); pen.stroke();
  } else if (STATES[state] === "skipped") {
    pen.strokeStyle = colours.fills[2];
    pen.moveTo(x + a, y + b); pen.lineTo(x + b, y + a); pen.stroke();
  }
};

const prepare = (canvas, width, height) => {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(width * scale);
  canvas.height = Math.ceil(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return pen;
};

export const drawKey = (canvas, state) => cell(prepare(canvas, 15, 15), palette(), 1, 1, 13, state);

// One map: keeps the states, draws what it has, says what lies under the pointer or the arrow keys.
export class BlockMap {
  constructor(stage, say) {
    this.stage = stage;
    this.states = new Uint8Array(0);
    this.grid = null;
    this.running = new Set();
    this.cursor = null;
    this.figure = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.figure.append(this.caption, this.canvas);
    this.say = say;
    this.canvas.addEventListener("pointermove", (event) => this.point(this.at(event.offsetX, event.offsetY)));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("blur", () => this.point(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  update(change) {
    if (change.states !== undefined) {
      this.grid = change.grid;
      this.states = Uint8Array.from(change.states, Number);
    }
    for (const [state, numbers] of Object.entries(change.late ?? {})) {
      for (const number of numbers) {
        if (number >= this.states.length) {
          const longer = new Uint8Array(number + 1);
          longer.set(this.states);
          this.states = longer;
        }
        this.states[number] = Number(state);
      }
    }
    this.running = new Set(change.running.filter((n) => this.open(n)));
  }

  open(number) {
    return STATES[this.states[number]] === "waiting" || STATES[this.states[number]] === "retrying";
  }

  state(number) {
    return this.running.has(number) ? RUNNING : this.states[number];
  }

  counts() {
    const counts = new Array(STATES.length + 1).fill(0);
    for (let number = 0; number < this.states.length; number += 1) counts[this.state(number)] += 1;
    return counts;
  }

  draw() {
    const count = this.states.length;
    const regular = this.grid && this.grid[0] * this.grid[1] * this.grid[2] === count ? this.grid : null;
    this.figure.classList.toggle("wide", count > 700);
    const width = Math.max(120, Math.floor(this.figure.clientWidth));
    const open = this.states.some((state) => STATES[state] === "waiting" || STATES[state] === "retrying");
    const highest = open ? HIGHEST : HIGHEST_DONE;
    const layout = (this.layout = arrange(regular, count, width, highest));
    const lines = Math.ceil(layout.tiles / layout.across);
    const pen = prepare(this.canvas, width, lines * (layout.rows * layout.size + layout.gap) - layout.gap + 2);
    const colours = palette();
    pen.translate(1, 1);
    pen.fillStyle = colours.ink;
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "top";
    for (let line = 0; layout.left && line < lines; line += 1) {
      pen.fillText(`z ${line * layout.across}`, 0, line * (layout.rows * layout.size + layout.gap));
    }
    const late = [];
    for (let number = 0; number < count; number += 1) {
      const state = this.state(number);
      if (state === QUARANTINED) late.push(number);
      else cell(pen, colours, ...place(layout, number), layout.size, state);
    }
    for (const number of late) cell(pen, colours, ...place(layout, number), layout.size, QUARANTINED);
    if (this.cursor !== null) {
      const [x, y] = place(layout, this.cursor);
      pen.strokeStyle = colours.edge;
      pen.lineWidth = 2;
      pen.strokeRect(x - 1, y - 1, layout.size + 1, layout.size + 1);
    }
    this.describe();
  }

  describe() {
    const counts = this.counts();
    const settled = counts[2] + counts[3] + counts[4] + counts[5];
    const name = document.createElement("b");
    name.textContent = this.stage;
    const shape = this.grid ? ` (${this.grid.join(" × ")})` : "";
    this.caption.replaceChildren(
      name,
      ` ${settled.toLocaleString("en")} of ${this.states.length.toLocaleString("en")} blocks${shape}`,
    );
    const words = [...WORDS, "running"].map((word, state) => (counts[state] ? `${counts[state]} ${word}` : ""));
    this.canvas.setAttribute("aria-label", `${this.stage}: ${words.filter(Boolean).join(", ")}; arrow keys go from block to block`);
  }

  at(x, y) {
    const { size, rows, columns, across, gap, left, tiles } = this.layout;
    const [high, wide] = [rows * size + gap, columns * size + gap];
    const [line, tile] = [Math.floor((y - 1) / high), Math.floor((x - 1 - left) / wide)];
    const [row, column] = [Math.floor((y - 1 - line * high) / size), Math.floor((x - 1 - left - tile * wide) / size)];
    const slice = line * across + tile;
    if (x < left || tile >= across || slice >= tiles || row >= rows || column >= columns || row < 0) return null;
    const number = (slice * rows + row) * columns + column;
    return number >= 0 && number < this.states.length ? number : null;
  }

  point(number) {
    if (number === this.cursor) return;
    this.cursor = number;
    this.draw();
    if (number === null) return this.say("");
    const [, rows, columns] = this.grid ?? [0, 1, 1];
    const where = this.grid
      ? ` at z ${Math.floor(number / (rows * columns))}, y ${Math.floor(number / columns) % rows}, x ${number % columns}`
      : "";
    return this.say(`${this.stage}, block ${number}${where}: ${[...WORDS, "running"][this.state(number)]}`);
  }

  key(event) {
    const { across } = this.layout;
    const [, rows, columns] = this.grid ?? [0, 1, across];
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: rows * columns, PageUp: -rows * columns,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = this.cursor === null ? 0 : this.cursor + steps[event.key];
    this.point(Math.max(0, Math.min(this.states.length - 1, next)));
  }
}

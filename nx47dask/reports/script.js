"use strict";

// Planes: a slider instead of all slices.
for (const plane of document.querySelectorAll(".plane")) {
  const frames = [...plane.querySelectorAll("figure")];
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: frames.length - 1, value: frames.length >> 1 });
  slider.setAttribute("aria-label", plane.getAttribute("aria-label"));
  slider.disabled = frames.length < 2;
  const cursors = plane.dataset.axis === "z" ? plane.closest("section").querySelectorAll("svg.curve") : [];
  const show = () => {
    const frame = frames[slider.value];
    for (const one of frames) one.classList.toggle("on", one === frame);
    slider.setAttribute("aria-valuetext", frame.querySelector("figcaption").textContent);
    for (const curve of cursors) {
      const [first, last] = curve.dataset.z.split(" ").map(Number);
      const [left, right] = curve.dataset.x.split(" ").map(Number);
      const x = left + ((right - left) * (frame.dataset.at - first)) / Math.max(last - first, 1);
      for (const end of ["x1", "x2"]) curve.querySelector(".cursor").setAttribute(end, x);
    }
  };
  slider.addEventListener("input", show);
  plane.querySelector("h3").after(slider);
  show();
}

// Volumes: the chosen one instead of all.
const pick = document.querySelector("#pick");
const choose = (id) => {
  if (![...pick.options].some((option) => option.value === id)) return;
  pick.value = id;
  for (const section of document.querySelectorAll("section.volume")) {
    section.classList.toggle("on", section.getAttribute("aria-labelledby") === id);
  }
};
pick.closest(".pick").hidden = pick.options.length < 2;
pick.addEventListener("change", () => choose(pick.value));
addEventListener("hashchange", () => {
  choose(location.hash.slice(1));
  document.getElementById(location.hash.slice(1))?.focus();
});
choose(pick.options[0].value);
if (location.hash) {
  choose(location.hash.slice(1));
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

// Tables: a title is a button that sorts, the largest number first.
const valueOf = (row, column) => {
  const cell = row.cells[column];
  const value = Number(cell.dataset.value ?? (cell.textContent.trim() || NaN));
  return Number.isNaN(value) ? cell.textContent : value;
};
const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;
  return a.localeCompare(b, undefined, { numeric: true });
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const other = column === 0 ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const one of heads) one.setAttribute("aria-sort", one === head ? order : "none");
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => sign * compare(valueOf(a, column), valueOf(b, column))));
    });
  });
}

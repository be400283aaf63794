"use strict";
// The map: hover, touch or arrow keys show an example; boxes hide classes. Without this script the page still reads.
for (const box of document.querySelectorAll("[data-map]")) {
  const map = box.querySelector(".map");
  const data = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  const sheet = box.querySelector("img.sheet");
  const bytes = Uint8Array.from(atob(data.points), (c) => c.charCodeAt(0));
  const places = new Uint16Array(bytes.buffer);
  const count = places.length / 2;
  const hidden = new Set();
  const at = (i) => [places[2 * i] / 65535, places[2 * i + 1] / 65535];
  const mark = add("div", "mark"), tip = add("div", "tip");
  const small = tip.appendChild(document.createElement("canvas"));
  const words = tip.appendChild(document.createElement("span"));
  words.setAttribute("role", "status");
  small.width = data.width;
  small.height = data.height;
  let current = -1;
  hide();

  function add(tag, name) {
    const made = document.createElement(tag);
    made.className = name;
    return map.appendChild(made);
  }

  function hide() {
    mark.hidden = tip.hidden = true;
    mark.style.display = tip.style.display = "none";
  }

  function show(i) {
    current = i;
    const [x, y] = at(i);
    const width = map.clientWidth, height = map.clientHeight;
    mark.hidden = tip.hidden = false;
    mark.style.display = "block";
    tip.style.display = "flex";
    mark.style.left = x * width + "px";
    mark.style.top = y * height + "px";
    const pen = small.getContext("2d");
    pen.clearRect(0, 0, small.width, small.height);
    pen.drawImage(sheet, (i % data.columns) * data.width, Math.floor(i / data.columns) * data.height,
      data.width, data.height, 0, 0, data.width, data.height);
    words.textContent = `${data.classes[data.labels[i]] ?? "no label"}, ${data.names[i]}`;
    const left = Math.min(Math.max(x * width + 14, 4), Math.max(width - tip.offsetWidth - 4, 4));
    const above = y * height - tip.offsetHeight - 12;
    tip.style.left = left + "px";
    tip.style.top = (above > 4 ? above : y * height + 14) + "px";
  }

  // The shown example with the least cost; a cost that is not finite leaves it out.
  function least(cost) {
    let best = -1, low = Infinity;
    for (let i = 0; i < count; i++) {
      if (hidden.has(data.labels[i])) continue;
      const value = cost(...at(i), i);
      if (value < low) { low = value; best = i; }
    }
    return best;
  }

  function point(event) {
    const frame = map.getBoundingClientRect();
    const px = (event.clientX - frame.left) / frame.width, py = (event.clientY - frame.top) / frame.height;
    const ratio = frame.height / frame.width;
    const i = least((x, y) => (x - px) ** 2 + ((y - py) * ratio) ** 2);
    if (i >= 0) show(i);
  }

  map.addEventListener("pointermove", point);
  map.addEventListener("pointerdown", point);
  map.addEventListener("pointerleave", hide);
  map.addEventListener("blur", hide);
  map.addEventListener("focus", () => { if (tip.hidden) show(Math.max(current, 0)); });
  map.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") hide();
    if (!turn) return;
    event.preventDefault();
    const [cx, cy] = at(Math.max(current, 0));
    const i = least((x, y, j) => {
      const ahead = (x - cx) * turn[0] + (y - cy) * turn[1];
      const aside = Math.abs((x - cx) * turn[1]) + Math.abs((y - cy) * turn[0]);
      return j !== current && ahead > 0 && ahead >= aside ? ahead + 2 * aside : Infinity;
    });
    if (i >= 0) show(i);
  });
  for (const input of box.querySelectorAll(".toggles input")) {
    input.addEventListener("change", () => {
      const label = Number(input.value);
      input.checked ? hidden.delete(label) : hidden.add(label);
      for (const drawn of box.querySelectorAll(`[data-label="${label}"]`)) drawn.classList.toggle("off", !input.checked);
      hide();
    });
  }
}

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

// Patches: a click, a tap or arrow keys choose one; the pictures below the images show how alike all others are.
for (const box of document.querySelectorAll("[data-patches]")) {
  const data = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  const [images, rows, columns, numbers] = data.shape;
  const codes = new Int8Array(Uint8Array.from(atob(data.codes), (c) => c.charCodeAt(0)).buffer);
  const scenes = [...box.querySelectorAll(".scene")], answers = [...box.querySelectorAll(".answer")];
  const words = box.querySelector("[role='status']");
  const cell = document.createElement("span");
  cell.className = "cell";
  cell.style.width = 100 / columns + "%";
  cell.style.height = 100 / rows + "%";
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  let chosen = data.start;
  mark();

  function mark() {
    cell.style.left = 100 * chosen[2] / columns + "%";
    cell.style.top = 100 * chosen[1] / rows + "%";
    scenes[chosen[0]].append(cell);
  }

  // A share of the scale as red, green, blue.
  function heat(share) {
    const at = Math.min(Math.max(share, 0), 1) * (data.heat.length - 1);
    const i = Math.min(Math.floor(at), data.heat.length - 2);
    return data.heat[i].map((low, c) => low + (at - i) * (data.heat[i + 1][c] - low));
  }

  function choose(image, row, column) {
    chosen = [image, Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)];
    mark();
    const first = ((chosen[0] * rows + chosen[1]) * columns + chosen[2]) * numbers;
    const cosines = new Float32Array(images * rows * columns);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < cosines.length; i++) {
      let sum = 0;
      for (let k = 0; k < numbers; k++) sum += codes[first + k] * codes[i * numbers + k];
      cosines[i] = Math.min(sum * data.scale ** 2, 1);
      low = Math.min(low, cosines[i]);
      high = Math.max(high, cosines[i]);
    }
    const pen = canvas.getContext("2d"), pixels = pen.createImageData(columns, rows);
    for (let i = 0; i < images; i++) {
      for (let j = 0; j < rows * columns; j++) {
        pixels.data.set([...heat((cosines[i * rows * columns + j] - low) / (high - low || 1)), 255], 4 * j);
      }
      pen.putImageData(pixels, 0, 0);
      answers[i].src = canvas.toDataURL();
    }
    words.textContent = `Row ${chosen[1] + 1}, column ${chosen[2] + 1} of image ${chosen[0] + 1}: ` +
      `cosines from ${low.toFixed(2)} (dark) to ${high.toFixed(2)} (light).`;
  }

  scenes.forEach((scene, image) => {
    scene.addEventListener("click", (event) => {
      const frame = scene.getBoundingClientRect();
      const down = (event.clientY - frame.top) / frame.height, right = (event.clientX - frame.left) / frame.width;
      choose(image, Math.floor(down * rows), Math.floor(right * columns));
    });
    scene.addEventListener("keydown", (event) => {
      const turn = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!turn) return;
      event.preventDefault();
      const [row, column] = chosen[0] === image ? chosen.slice(1) : data.start.slice(1);
      choose(image, row + turn[0], column + turn[1]);
    });
  });
}

(() => {
  "use strict";
  const { points, axes, bounds, budget: fields, yardstick, teacher, chosen } = JSON.parse(document.getElementById("data").textContent);
  const LEFT = 56, RIGHT = 704, TOP = 12, BOTTOM = 380, LARGEST = 15, SMALLEST = 4;
  const SLACK = 1e-9; // what a decimal loses on its way from a share to points
  const at = id => document.getElementById(id);
  const every = points.map((_, index) => index);
  const rows = [...document.querySelectorAll("#table tbody tr")].sort((a, b) => a.dataset.at - b.dataset.at);
  const heads = [...document.querySelectorAll("#table thead th")];
  const axis = key => axes.find(one => one.key === key);
  const short = number => String(Number(number.toPrecision(3)));
  const cell = (index, key) => rows[index].children[heads.findIndex(head => head.dataset.key === key)].textContent;
  const svg = (tag, attributes, parent, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  };

  // Scales
  const steps = (low, high) => {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 2.5, 5, 10].find(times => power * times >= rough);
    const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
    return Array.from({ length: count }, (_, index) => Number(((first + index) * step).toPrecision(12)));
  };
  const logSteps = (low, high) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      [1, 2, 5].forEach(times => found.push(Number((times * 10 ** power).toPrecision(12))));
    const inside = found.filter(tick => tick >= low && tick <= high);
    return inside.length > 2 ? inside : steps(low, high);
  };
  const across = one => {
    const values = points.map(point => point[one.key] * one.factor);
    const low = Math.min(...values) / 1.2, high = Math.max(...values) * 1.2;
    const place = value => LEFT + Math.log(value / low) / Math.log(high / low) * (RIGHT - LEFT);
    return { place, ticks: logSteps(low, high) };
  };
  const atTeacher = one => one.key === "quality" ? teacher.quality * one.factor : 0;
  const upward = one => {
    const values = [...points.map(point => point[one.key] * one.factor), atTeacher(one)];
    const air = (Math.max(...values) - Math.min(...values)) * 0.09 || 1;
    const low = Math.min(...values) - air, high = Math.max(...values) + air;
    const share = value => one.more_is_better ? (value - low) / (high - low) : (high - value) / (high - low);
    return { place: value => BOTTOM - share(value) * (BOTTOM - TOP), ticks: steps(low, high) };
  };

  // What is shown: the axes, the point whose figures stand in the panel, what the budget asks, and whom it takes.
  let x, y, xScale, yScale, picked = chosen ?? Math.max(points.findIndex(point => point.on_front), 0);
  let active = picked, limits = [], found = null;
  const largest = Math.max(...points.map(point => point.bytes));
  const radius = index => Math.max(LARGEST * Math.sqrt(points[index].bytes / largest), SMALLEST);
  const px = index => xScale.place(points[index][x.key] * x.factor);
  const py = index => yScale.place(points[index][y.key] * y.factor);
  const marks = [];
  [...every].sort((a, b) => radius(b) - radius(a)).forEach(index => {
    const label = `Point ${index + 1}: ${points[index].name}; ${["bytes", "p50_ms", "quality", "loss"]
      .map(key => `${heads.find(head => head.dataset.key === key).textContent}: ${cell(index, key)}`).join("; ")}`;
    marks[index] = svg("circle", { r: radius(index), class: points[index].on_front ? "mark front" : "mark", role: "option", "aria-label": label, "data-at": index }, at("marks"));
  });

  const draw = () => {
    [x, y] = [axis(at("across").value), axis(at("up").value)];
    [xScale, yScale] = [across(x), upward(y)];
    every.forEach(index => { marks[index].setAttribute("cx", px(index).toFixed(2)); marks[index].setAttribute("cy", py(index).toFixed(2)); });
    const grid = at("grid");
    grid.replaceChildren();
    xScale.ticks.forEach(tick => {
      svg("path", { d: `M${xScale.place(tick)} ${TOP}V${BOTTOM}` }, grid);
      svg("text", { x: xScale.place(tick), y: BOTTOM + 18, "text-anchor": "middle" }, grid, String(tick));
    });
    yScale.ticks.forEach(tick => {
      svg("path", { d: `M${LEFT} ${yScale.place(tick)}H${RIGHT}` }, grid);
      svg("text", { x: LEFT - 8, y: yScale.place(tick) + 4, "text-anchor": "end" }, grid, String(tick));
    });
    svg("text", { x: RIGHT, y: BOTTOM + 40, "text-anchor": "end" }, grid, `${x.title} (log)`);
    at("hint").textContent = `Up and ${x.more_is_better ? "right" : "left"} is better.`;
    at("reference").setAttribute("d", `M${LEFT} ${yScale.place(atTeacher(y))}H${RIGHT}`);
    at("line").setAttribute("d", outline().map((index, place) => `${place ? "L" : "M"}${px(index)} ${py(index)}`).join(""));
    show(active);
    name();
  };
  // From the best across, those that are better upward than all before them.
  const outline = () => {
    const side = x.more_is_better ? -1 : 1;
    const sorted = [...every].sort((a, b) => side * (px(a) - px(b)) || py(a) - py(b));
    return sorted.reduce((kept, index) => !kept.length || py(index) < py(kept.at(-1)) ? [...kept, index] : kept, []);
  };
  const name = () => {
    const names = at("names");
    names.replaceChildren();
    const heading = `teacher: ${yardstick.told}, ${short(teacher.p50_ms)} ms, ${short(teacher.bytes * 1e-6)} MB`;
    svg("text", { x: x.more_is_better ? RIGHT - 4 : LEFT + 6, y: yScale.place(atTeacher(y)) - 6, "text-anchor": x.more_is_better ? "end" : "start", class: "name teacher" }, names, heading);
    if (chosen !== null) ring(chosen, 4.5, "");
    if (found !== null) ring(found, 8, "found");
    if (chosen !== null && chosen !== found) call(chosen, "chosen", "", 0);
    if (found === null) return;
    const above = chosen !== null && chosen !== found && Math.abs(px(found) - px(chosen)) < 110 ? 16 : 0;
    call(found, chosen === found ? "chosen, and cheapest that holds" : "cheapest that holds", "found", above);
  };

  const ring = (index, more, kind) => svg("circle", { cx: px(index), cy: py(index), r: radius(index) + more, class: `halo ${kind}` }, at("names"));
  // Above all points around it stands no other, so the name of a point stands there, a line leads to it.
  const call = (index, text, kind, more) => {
    const half = text.length * 3.7, middle = Math.min(Math.max(px(index), LEFT + half), RIGHT - half);
    const tops = every.filter(other => Math.abs(px(other) - px(index)) < half + 10).map(other => py(other) - radius(other));
    const y = Math.max(Math.min(...tops) - 16, TOP + 14) - more, end = py(index) - radius(index) - (kind ? 8 : 4.5);
    if (y + 4 < end) svg("path", { d: `M${px(index)} ${y + 4}V${end}`, class: `leader ${kind}` }, at("names"));
    svg("text", { x: middle, y, "text-anchor": "middle", class: `name ${kind}` }, at("names"), text);
  };

  // One point
  const show = index => {
    every.forEach(one => {
      marks[one].classList.toggle("active", one === index);
      rows[one].classList.toggle("active", one === index);
      marks[one].setAttribute("tabindex", one === active ? "0" : "-1");
      marks[one].setAttribute("aria-selected", String(one === active));
    });
    at("who").textContent = `Point ${index + 1}: ${points[index].name}`;
    const missed = limits.filter(limit => !holds(points[index], limit)).map(limit => limit.title);
    at("holds").textContent = !limits.length ? "" : missed.length ? `Does not hold: ${missed.join("; ")}` : "Holds the budget";
    at("figures").replaceChildren(...heads.slice(1).map(head => {
      const line = document.createElement("div");
      line.append(Object.assign(document.createElement("dt"), { textContent: head.textContent }));
      line.append(Object.assign(document.createElement("dd"), { textContent: cell(index, head.dataset.key) }));
      return line;
    }));
    const ends = (one, scale) => one.low ? [one.low, one.high].map(key => scale.place(points[index][key] * one.factor)) : null;
    const [wide, tall] = [ends(x, xScale), ends(y, yScale)];
    at("interval").setAttribute("d", (wide ? `M${wide[0]} ${py(index)}H${wide[1]}` : "") + (tall ? `M${px(index)} ${tall[0]}V${tall[1]}` : ""));
  };
  const select = index => { active = picked = index; show(index); };
  marks.forEach((mark, index) => {
    mark.addEventListener("mouseenter", () => show(index));
    mark.addEventListener("mouseleave", () => show(active));
    mark.addEventListener("focus", () => select(index));
    mark.addEventListener("click", () => mark.focus());
  });
  rows.forEach((row, index) => row.addEventListener("click", () => select(index)));
  at("marks").addEventListener("keydown", event => {
    const order = [...every].sort((a, b) => px(a) - px(b) || a - b), place = order.indexOf(active), last = order.length - 1;
    const next = { ArrowRight: Math.min(place + 1, last), ArrowUp: Math.min(place + 1, last), ArrowLeft: Math.max(place - 1, 0), ArrowDown: Math.max(place - 1, 0), Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    marks[order[next]].focus();
  });

  // The budget
  const worth = (point, bound) => point[bound.key] * bound.factor;
  const holds = (point, limit) => limit.at_most ? worth(point, limit) <= limit.limit + SLACK : worth(point, limit) >= limit.limit - SLACK;
  // As the build chooses: of the least cost the most accurate, of these the smallest.
  const cheapest = held => {
    const cost = at("budget").elements.cheapest.value;
    const price = index => points[index][cost === `${yardstick.key}_loss` ? "loss" : cost];
    return [...held].sort((a, b) => price(a) - price(b) || points[a].loss - points[b].loss || points[a].bytes - points[b].bytes)[0];
  };
  const told = index => `Point ${index + 1} (${points[index].name}): ${cell(index, "bytes")} MB, ${cell(index, "p50_ms")} ms, ${cell(index, "loss")} ${yardstick.unit_of_loss} to the teacher.`;
  // To four digits, so that what is said is still held.
  const rounded = (number, atMost) => {
    const power = 10 ** (3 - Math.floor(Math.log10(number)));
    const whole = atMost ? Math.ceil(number * power - SLACK) : Math.floor(number * power + SLACK);
    return String(Number((whole / power).toPrecision(4)));
  };
  const nearest = () => limits.map(limit => {
    const others = points.filter(point => limits.every(other => other === limit || holds(point, other)));
    if (!others.length) return "";
    const nearest = Math[limit.at_most ? "min" : "max"](...others.map(point => worth(point, limit)));
    return `\nWith the rest as it is, “${limit.title}” would have to be ${rounded(nearest, limit.at_most)}.`;
  }).join("");
  const recoverable = () => !limits.some(limit => limit.name === yardstick.bound) ? ""
    : "\nThis is before recovery: a build also tries points that lack up to prune.hope of it.";
  const inRecipe = field => {
    const limit = limits.find(one => one.name === field);
    if (!limit) return field === "cheapest" ? at("budget").elements.cheapest.value : "null";
    return limit.recipe_factor === 1 ? limit.limit : Math.round(limit.limit * limit.recipe_factor);
  };
  const budget = () => {
    const inputs = bounds.map(bound => [bound, at("budget").elements[bound.name]]);
    const wrong = inputs.filter(([, input]) => !input.validity.valid || (input.value !== "" && Number(input.value) <= 0)).map(([bound]) => bound.title);
    limits = wrong.length ? [] : inputs.filter(([, input]) => input.value !== "").map(([bound, input]) => ({ ...bound, limit: Number(input.value) }));
    const held = every.filter(index => limits.every(limit => holds(points[index], limit)));
    found = limits.length && held.length ? cheapest(held) : null;
    every.forEach(index => [marks[index], rows[index]].forEach(node => {
      node.classList.toggle("dim", !held.includes(index));
      node.classList.toggle("found", index === found);
    }));
    at("answer").textContent = wrong.length ? `Not a number above 0: ${wrong.join("; ")}.`
      : !limits.length ? "Points that do not hold what is typed here at the pessimistic end of their 95 % intervals are dimmed."
      : !held.length ? `No point holds this.${nearest()}${recoverable()}`
      : `${held.length} of ${points.length} point${points.length === 1 ? "" : "s"} hold${held.length === 1 ? "s" : ""} this. The cheapest: ${told(found)}`;
    at("recipe").hidden = !limits.length;
    at("block").textContent = "budget:\n" + fields.map(field => `  ${field}: ${inRecipe(field)}\n`).join("");
    active = found ?? picked;
    show(active);
    name();
  };
  at("budget").addEventListener("input", budget);
  at("budget").addEventListener("submit", event => event.preventDefault());
  at("budget").addEventListener("reset", () => setTimeout(budget));
  at("copy").addEventListener("click", () => {
    const said = text => { at("copy").textContent = at("status").textContent = text; setTimeout(() => { at("copy").textContent = "Copy"; at("status").textContent = ""; }, 2000); };
    const byHand = () => { getSelection().selectAllChildren(at("block")); said(document.execCommand("copy") ? "Copied" : "Selected"); };
    if (navigator.clipboard) navigator.clipboard.writeText(at("block").textContent).then(() => said("Copied"), byHand);
    else byHand();
  });

  // The table
  const sortBy = head => {
    const key = head.dataset.key, down = head.getAttribute("aria-sort") === "ascending";
    const value = index => key === "number" ? index : points[index][key];
    const order = [...every].sort((a, b) => (down ? -1 : 1) * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) || a - b);
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    document.querySelector("#table tbody").append(...order.map(index => rows[index]));
  };
  heads.forEach(head => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: head.textContent });
    button.addEventListener("click", () => sortBy(head));
    head.replaceChildren(button);
  });

  ["up", "across"].forEach(id => at(id).addEventListener("change", draw));
  document.querySelectorAll(".live").forEach(section => { section.hidden = false; });
  draw();
  budget();
})();

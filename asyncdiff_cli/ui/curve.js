// The editor of a schedule: a point for each step that is told a time of its own. Gradio calls this
// with `element`, `props`, `trigger` and `watch`; `props.value` is a Curve and `serial`, `seconds`.
const MARGIN = { left: 46, right: 14, top: 14, bottom: 10 };
const PLOT = 170, RULER = 84, CLEANEST = 1e-3, STEP = 0.05, FINE = 0.01, LEAP = 0.25;
const QUICK = 1.5; // seconds within which a picture is drawn while the mouse moves
const root = element.querySelector(".curve");
const readout = root.querySelector(".readout");
const svg = root.querySelector("svg");
let deviations = [], told = [], width = 0, at = 0, held = null, painting = false, sent = 0, due = 0;

const make = (name, attributes, parent, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const round = (value, digits) => Number(value.toFixed(digits)) + 0;
const sigmas = () => props.value?.sigmas ?? [];
const column = () => (width - MARGIN.left - MARGIN.right) / Math.max(1, deviations.length);
const x = (index) => MARGIN.left + (index + 0.5) * column();
const y = (deviation) => MARGIN.top + ((1 - clamp(deviation, -1, 1)) / 2) * (PLOT - MARGIN.top);
const time = (t) => MARGIN.left + (1 - t) * (width - MARGIN.left - MARGIN.right);

// Eq. 6 and line 10 of Algorithm 2; the server says the same of the run that it draws
const tell = () => {
  const t = sigmas(), gamma = props.value.gamma;
  told = [t[0], ...deviations.map((d, k) => {
    const eta = 1 + gamma * d;
    return eta === 1 ? t[k + 1] : clamp(t[k] + eta * (t[k + 1] - t[k]), CLEANEST, t[0]);
  })];
};

const say = () => {
  if (!deviations.length) {
    const before = props.value?.live ? "Drawing …" : "Press Draw.";
    readout.textContent = sigmas().length ? "One step: there is nothing to choose." : before;
    return;
  }
  const k = at + 1;
  readout.textContent =
    `Step ${k + 1} of ${deviations.length + 1}: D ${signed(deviations[at])}, ` +
    `t ${sigmas()[k].toFixed(3)}, told t* ${told[k].toFixed(3)}`;
};

const draw = () => {
  const height = PLOT + 40 + RULER, right = width - MARGIN.right;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const focused = svg.contains(document.activeElement) ? document.activeElement.dataset.index : null;
  svg.replaceChildren();
  for (const [value, label] of [[1, "+1"], [0.5, ""], [0, "D 0"], [-0.5, ""], [-1, "−1"]]) {
    const line = { x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) };
    make("line", { ...line, class: value ? "grid" : "zero" }, svg);
    make("text", { x: MARGIN.left - 8, y: y(value) + 4, class: "axis end" }, svg, label);
  }
  const every = Math.ceil(42 / column());
  deviations.forEach((d, k) => {
    make("line", { x1: x(k), x2: x(k), y1: y(0), y2: y(d), class: "stem" }, svg);
    if (k % every) return;
    make("text", { x: x(k), y: PLOT + 16, class: "axis middle" }, svg, sigmas()[k + 1].toFixed(3));
    make("text", { x: x(k), y: PLOT + 32, class: "told middle" }, svg, told[k + 1].toFixed(3));
  });
  make("text", { x: MARGIN.left - 26, y: PLOT + 16, class: "axis end" }, svg, "t");
  make("text", { x: MARGIN.left - 26, y: PLOT + 32, class: "told end" }, svg, "t*");
  make("polyline", { points: deviations.map((d, k) => `${x(k)},${y(d)}`).join(" "), class: "line" }, svg);
  ruler(PLOT + 56, right);
  deviations.forEach(handle);
  if (focused !== null) svg.querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
  say();
};

// the grid's own times above, those that the model is told below, from noise to picture
const ruler = (top, right) => {
  const above = top + 8, below = top + 36;
  for (const [level, name] of [[above, "t"], [below, "t*"]]) {
    make("line", { x1: MARGIN.left, x2: right, y1: level, y2: level, class: "zero" }, svg);
    make("text", { x: MARGIN.left - 8, y: level + 4, class: name === "t" ? "axis end" : "told end" }, svg, name);
  }
  told.forEach((t, k) => {
    const own = time(sigmas()[k]), said = time(t);
    make("line", { x1: own, x2: said, y1: above, y2: below, class: k - 1 === at ? "link chosen" : "link" }, svg);
    make("circle", { cx: own, cy: above, r: 3.5, class: "own" }, svg);
    make("circle", { cx: said, cy: below, r: 3.5, class: "said" }, svg);
  });
  make("text", { x: MARGIN.left, y: below + 18, class: "axis" }, svg, "1, noise");
  make("text", { x: right, y: below + 18, class: "axis end" }, svg, "0, picture");
};

const handle = (d, k) => {
  const group = make("g", {
    class: "handle", tabindex: 0, role: "slider", "data-index": k, "aria-orientation": "vertical",
    "aria-label": `Deviation of step ${k + 2}`, "aria-valuemin": -1, "aria-valuemax": 1,
    "aria-valuenow": round(d, 3), "aria-valuetext": `${signed(d)}, told ${told[k + 1].toFixed(3)}`,
  }, svg);
  make("circle", { cx: x(k), cy: y(d), r: 16, class: "reach" }, group);
  make("circle", { cx: x(k), cy: y(d), r: 7, class: "point" }, group);
};

const move = (index, deviation) => {
  at = index;
  deviations = deviations.map((d) => clamp(d, -1, 1)); // of a policy that has no bound
  deviations[index] = round(clamp(deviation, -1, 1), 2);
  tell();
  draw();
};

const keep = () => {
  const rounded = deviations.map((d) => round(d, 4));
  props.value = { ...props.value, deviations: rounded, serial: sent, dragged: true };
};
const send = () => {
  clearTimeout(due);
  due = 0;
  sent += 1;
  keep();
  trigger("input");
};
const sendSoon = (delay) => {
  due ||= setTimeout(send, delay);
};

const pointed = (event) => {
  const box = svg.getBoundingClientRect();
  const index = Math.floor((event.clientX - box.left - MARGIN.left) / column());
  const deviation = 1 - (2 * (event.clientY - box.top - MARGIN.top)) / (PLOT - MARGIN.top);
  return [clamp(index, 0, deviations.length - 1), deviation, event.clientY - box.top];
};

svg.addEventListener("pointerdown", (event) => {
  const own = event.target.closest(".handle");
  const [index, deviation, down] = pointed(event);
  if (!deviations.length || event.button || (!own && down > PLOT + 8)) return;
  held = own ? Number(own.dataset.index) : index;
  painting = !own;
  svg.setPointerCapture(event.pointerId);
  if (painting) move(held, deviation);
  at = held;
  svg.querySelector(`[data-index="${held}"]`).focus({ preventScroll: true });
  event.preventDefault();
});
svg.addEventListener("pointermove", (event) => {
  if (held === null) return;
  const [index, deviation] = pointed(event);
  if (painting) held = index;
  move(held, deviation);
  if (props.value.live && props.value.seconds < QUICK) sendSoon(120);
});
for (const name of ["pointerup", "pointercancel"])
  svg.addEventListener(name, () => {
    if (held === null) return;
    held = null;
    send();
  });
svg.addEventListener("dblclick", (event) => {
  if (!event.target.closest(".handle")) return;
  move(Number(event.target.closest(".handle").dataset.index), 0);
  send();
});

const KEYS = {
  ArrowUp: STEP, ArrowDown: -STEP, PageUp: LEAP, PageDown: -LEAP,
  Home: -2, End: 2, 0: 0, Delete: 0, Backspace: 0,
};
svg.addEventListener("keydown", (event) => {
  const index = Number(event.target.dataset?.index ?? -1);
  if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const beside = { ArrowLeft: index - 1, ArrowRight: index + 1 }[event.key];
  if (beside !== undefined) svg.querySelector(`[data-index="${beside}"]`)?.focus();
  else if (event.key in KEYS) {
    const change = event.shiftKey ? Math.sign(KEYS[event.key]) * FINE : KEYS[event.key];
    move(index, change ? deviations[index] + change : 0);
    sendSoon(250);
  } else return;
  event.preventDefault();
});
svg.addEventListener("focusin", (event) => {
  const index = Number(event.target.dataset?.index ?? at);
  if (index === at) return;
  at = index;
  draw();
});

const show = () => {
  const value = props.value;
  if (held !== null || due || (value?.serial ?? 0) < sent) {
    if (value) keep(); // it is of an older drag, and gradio sends what is here for the newest
    return;
  }
  deviations = [...(value?.deviations ?? [])];
  told = [...(value?.cond_sigmas ?? [])];
  at = clamp(at, 0, Math.max(0, deviations.length - 1));
  if (width) draw();
};
watch("value", show);
new ResizeObserver(() => {
  if (Math.round(root.clientWidth) === width) return;
  width = Math.round(root.clientWidth);
  draw();
}).observe(root);
show();

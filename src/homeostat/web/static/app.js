// What the pages need beyond htmx: no needless redraw, the state of the stream, texts for screen readers, the chart.
"use strict";

(() => {
  const ROWS_MAX = 200;
  const byId = (id) => document.getElementById(id);

  // A part that says what is there already is not redrawn: a selection and a scroll position survive.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    if (event.detail.xhr.status >= 400) {
      say(event.detail.serverResponse);
      if (target.tagName === "OUTPUT") target.textContent = event.detail.serverResponse;
      return;
    }
    if (target.id !== "live") return;
    const page = new DOMParser().parseFromString(event.detail.serverResponse, "text/html");
    const fresh = page.getElementById("live");
    if (fresh === null) return;
    if (fresh.dataset.summary !== target.dataset.summary) say(fresh.dataset.summary);
    target.dataset.summary = fresh.dataset.summary;
    const sameHealth = page.getElementById("health")?.textContent === byId("health")?.textContent;
    if (sameHealth && fresh.innerHTML.trim() === target.innerHTML.trim()) event.detail.shouldSwap = false;
    else focused = target.contains(document.activeElement) ? document.activeElement.outerHTML : null;
  });

  // The keyboard stays where it was. htmx finds what has an id again, and this what has none.
  let focused = null;
  document.addEventListener("htmx:afterSwap", () => {
    if (focused !== null && document.activeElement === document.body)
      [...document.querySelectorAll("#live a, #live button")]
        .find((each) => each.outerHTML === focused)
        ?.focus({ preventScroll: true });
    focused = null;
  });

  function say(words) {
    byId("said").textContent = words;
  }

  // The journal: a row comes once, and the page stays bounded.
  document.addEventListener("htmx:sseMessage", (event) => {
    const rows = byId("rows");
    if (rows === null || event.detail.type !== "journal") return;
    const seen = new Set();
    for (const row of [...rows.rows]) {
      if (seen.has(row.id) || seen.size >= ROWS_MAX) row.remove();
      seen.add(row.id);
    }
    byId("none")?.remove();
  });

  function link(state, words) {
    const shown = byId("link");
    if (shown === null || shown.dataset.state === state) return;
    shown.dataset.state = state;
    shown.textContent = words;
  }
  document.addEventListener("htmx:sseOpen", () => link("on", "live"));
  document.addEventListener("htmx:sseError", () => link("lost", "connection lost"));

  // The chart of the last hour.
  const chart = byId("chart");
  if (chart === null || typeof uPlot === "undefined") return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let plot = null;
  let shown = null;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const millis = (ms) => (ms === null || ms === undefined ? "–" : ms < 1000 ? `${+ms.toPrecision(3)} ms` : `${+(ms / 1000).toPrecision(3)} s`);
  const twoDigits = (number) => String(number).padStart(2, "0");
  const hourAndMinute = (seconds) => {
    const at = new Date(seconds * 1000);
    return `${twoDigits(at.getUTCHours())}:${twoDigits(at.getUTCMinutes())}`;
  };

  const decades = (low, high) => {
    const found = [];
    for (let ms = 1; ms <= high; ms *= 10) if (ms >= low) found.push(ms);
    return found;
  };

  function draw() {
    plot?.destroy();
    plot = null;
    if (shown === null) return;
    const [text, line] = [colour("--quiet"), colour("--line")];
    const axis = { stroke: text, font: "11px system-ui", grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const series = (label, name, dash, fill) => ({
      label,
      stroke: colour(name),
      width: 1.5,
      dash,
      spanGaps: true,
      points: { show: true, size: 7, width: 1.5, fill },
      value: (_, value) => millis(value),
    });
    plot = new uPlot(
      {
        width: chart.clientWidth,
        height: 170,
        cursor: { drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: [Math.max(shown.from, Math.min(shown.to - 300, (shown.at[0] ?? shown.to) - 15)), shown.to] },
          y: { distr: 3, range: (_, low, high) => [Math.min(1, low ?? 1), Math.max(10000, (high ?? 1) * 1.5)] },
        },
        axes: [
          { ...axis, incrs: [60, 120, 300, 600, 900, 1800], values: (_, splits) => splits.map(hourAndMinute) },
          { ...axis, size: 58, splits: (_, __, low, high) => decades(low, high), filter: (_, splits) => splits, values: (_, splits) => splits.map(millis) },
        ],
        series: [
          { label: "fault at", value: (_, at) => (at === null ? "–" : hourAndMinute(at)) },
          series("outage at most", "--bad", undefined, colour("--bad")),
          series("at least", "--bad", [2, 4], colour("--paper")),
          series("notification", "--accent", [4, 4], colour("--paper")),
        ],
      },
      [shown.at, shown.outage_ms, shown.outage_lower_ms, shown.told_ms],
      chart,
    );
  }

  async function fetchFigures() {
    let answer;
    try {
      answer = await fetch(chart.dataset.from, { headers: { Accept: "application/json" } });
    } catch {
      return; // the stream says that the connection is lost
    }
    if (!answer.ok) return;
    const figures = await answer.json();
    const count = figures.at.length;
    const worst = (values) => values.reduce((most, each) => (each !== null && each > most ? each : most), 0);
    byId("chart-words").textContent =
      count === 0
        ? "No fault in the last hour."
        : `${count} ${count === 1 ? "fault" : "faults"}; longest outage ${millis(worst(figures.outage_ms) || null)}, slowest notification ${millis(worst(figures.told_ms) || null)}. Times in UTC.`;
    shown = figures;
    draw();
  }

  dark.addEventListener("change", draw);
  new ResizeObserver(() => {
    if (plot !== null && plot.width !== chart.clientWidth) plot.setSize({ width: chart.clientWidth, height: 170 });
  }).observe(chart);
  let due = null;
  for (const name of ["sse:changed", "sse:tick"]) {
    byId("live").addEventListener(name, () => {
      due ??= setTimeout(() => {
        due = null;
        fetchFigures();
      }, 400);
    });
  }
  fetchFigures();
})();

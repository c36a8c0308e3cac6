// Charts on uPlot, in the colours of the style sheet, which follow the browser's light or dark scheme.
const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);

// A custom property may hold light-dark(): only a used colour is resolved.
export function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

const numbers = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const moment = (time) => new Date(1000 * time).toISOString().slice(11, 19);
const FONT = "12px system-ui, sans-serif";

function axis(more) {
  return {
    stroke: () => colour("quiet"),
    grid: { stroke: () => colour("line"), width: 1 },
    ticks: { stroke: () => colour("line"), width: 1 },
    font: FONT,
    ...more,
  };
}

function make(element, options, data) {
  const size = () => ({ width: Math.max(element.clientWidth, 200), height: options.height });
  const chart = new uPlot({ legend: { show: false }, cursor: { show: false }, ...options, ...size() }, data, element);
  let width = element.clientWidth;
  new ResizeObserver(() => {
    if (element.clientWidth !== width) {
      width = element.clientWidth;
      chart.setSize(size());
    }
  }).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.redraw(false, true));
  return chart;
}

// Decisions a second: three lines that differ in dashes, too, for who does not tell the colours apart.
export function ratesChart(element) {
  const line = (name, dash, width) => ({ stroke: () => colour(name), dash, width, points: { show: false } });
  return make(element, {
    height: 240,
    padding: [null, 32, null, null], // half of the last time's label
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, 5)] } },
    series: [{}, line("allow", [], 2), line("challenge", [6, 4], 2), line("block", [], 3)],
    tzDate: (time) => uPlot.tzDate(new Date(1000 * time), "Etc/UTC"),
    axes: [axis({ incrs: [1, 5, 10, 30, 60, 120, 300], space: 70, values: (_, ticks) => ticks.map(moment) }), axis({ size: 52, values: (_, ticks) => ticks.map((tick) => numbers.format(tick)) })],
  }, [[], [], [], []]);
}

const SMALLEST = 0.0001;

// Shares of requests by score, the last minutes as bars before the last hour as a stepped line. The scale is logarithmic: nearly
// all requests score high, and the few that do not are what is looked for.
export function scoresChart(element, width) {
  return make(element, {
    height: 220,
    scales: { x: { time: false, range: [0, 100] }, y: { distr: 3, range: [SMALLEST, 1] } },
    series: [
      {},
      { stroke: () => colour("allow"), fill: () => colour("allow"), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.8, 100], align: 1 }) },
      { stroke: () => colour("usual"), width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) },
    ],
    axes: [
      axis({ incrs: [10, 20, 50], space: 40 }),
      axis({ size: 60, splits: () => [0.0001, 0.001, 0.01, 0.1, 1], values: (_, ticks) => ticks.map((tick) => `${Number((100 * tick).toPrecision(1))} %`) }),
    ],
  }, [[], [], []]);
}

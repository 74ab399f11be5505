// The charts of page.js, drawn by Bokeh when they come into sight.

// Okabe and Ito's colours, which people see who tell few apart, made darker or lighter for the ground.
const inks = { light: ["#0072b2", "#c44e00", "#007a5a", "#a3528a", "#8a6d00", "#444444"], dark: ["#56b4e9", "#e8903a", "#3ecf9f", "#e094c4", "#f0e442", "#cccccc"] };
const dashes = ["solid", "dashed", "dotted", "dotdash"];
const bandLook = { fill_alpha: 0.22 };
// What became of a rate that was tried is seen without colours too.
const signs = { held: { marker: "circle", sign: "●" }, exceeded: { marker: "x", sign: "✕" }, result: { marker: "diamond", sign: "◆" } };
const drawn = new Map();

const unitOf = (chart) => (chart.unit === "ratio" || chart.unit === "1" ? "" : chart.unit);

function figure(chart, holder) {
  const one = element("figure");
  const plot = element("div", null, { class: "plot", role: "img" });
  drawn.set(plot, { chart, caption: element("figcaption"), view: null });
  one.append(drawn.get(plot).caption, plot);
  holder.append(one);
  return holder;
}

function caption(chart) {
  const shown = chart.series.reduce((sum, one) => sum + one.x.length, 0);
  const all = chart.series.reduce((sum, one) => sum + one.points, 0);
  const said = [];
  if (chart.hint) said.push(say(`hint.${chart.hint}`));
  if (chart.bounds?.length) said.push(say(chart.points ? "chart.bound.latency" : "chart.bound", { bound: chart.bounds.join(", ") }));
  if (chart.marks?.length) said.push(say(chart.inferred ? "chart.marks.inferred" : "chart.marks", { round: chart.round }));
  if (shown < all) said.push(say("chart.thinned", { shown, all }));
  const unit = unitOf(chart);
  return [say(`chart.${chart.title}`, { name: chart.name }) + (unit ? ` [${unit}]` : ""), said.join(" · ")];
}

function nameOf(chart, one) {
  if (chart.rounds) return say("series.round", one);
  if (chart.points) return say(`series.${one.name}`);
  return /^\d+$/.test(one.name) ? say("series.device", one) : one.name;
}

function entry(look, text, sign = null) {
  const swatch = element("span", sign, { class: "swatch", "aria-hidden": "true" });
  Object.assign(swatch.style, look);
  const line = element("li");
  line.append(swatch, text);
  return line;
}

function legend(chart, ink, quiet) {
  const list = element("ul", null, { class: "legend" });
  if (chart.series.length < 2 && !chart.band && !chart.points) return list;
  for (const [index, one] of chart.series.entries()) {
    if (chart.points) {
      const { sign } = signs[one.name] ?? signs.result;
      list.append(entry({ color: ink[index % ink.length], textAlign: "center" }, nameOf(chart, one), sign));
      continue;
    }
    const style = { solid: "solid", dotted: "dotted" }[dashes[index % dashes.length]] ?? "dashed";
    list.append(entry({ borderTop: `3px ${style} ${ink[index % ink.length]}` }, nameOf(chart, one)));
  }
  if (chart.band) {
    list.append(
      entry({ height: "0.8em", background: quiet, opacity: bandLook.fill_alpha }, say("band.interval", chart.band)),
      entry({ borderTop: `2px dotted ${quiet}` }, say("band.mean")),
      entry({ borderTop: `2px solid ${quiet}` }, say("band.limit")),
    );
  }
  return list;
}

// Behind the curves: where the baseline's rounds let one more be expected, and what is told of it under the pointer.
function drawBand(Bokeh, picture, band, quiet) {
  const shown = band.low.map((low, index) => `${low} … ${band.high[index]}`);
  const source = new Bokeh.ColumnDataSource({
    data: { x: band.x, mean: band.mean, low: band.low, high: band.high, limit: band.limit, shown, of_mean: band.mean.map(String), of_limit: band.limit.map(String) },
  });
  const at = (name) => ({ field: name });
  const line = (name, look) => (band.x.length > 1 ? picture.line(at("x"), at(name), { source, ...look }) : picture.scatter(at("x"), at(name), { source, marker: "dash", size: 24, line_alpha: 1, ...look }));
  // With data of its own: what is under the pointer is left out of an area.
  const area = new Bokeh.ColumnDataSource({ data: { x: band.x, low: band.low, high: band.high } });
  if (band.x.length > 1) picture.varea(at("x"), at("low"), at("high"), { source: area, fill_color: quiet, fill_alpha: bandLook.fill_alpha });
  else picture.segment(at("x"), at("low"), at("x"), at("high"), { source: area, line_color: quiet, line_alpha: bandLook.fill_alpha, line_width: 24 });
  line("mean", { line_color: quiet, line_width: 1.5, line_dash: "dotted" });
  line("limit", { line_color: quiet, line_width: 1.5 });
  // As wide as a pointer is exact: see the curves.
  const met = ["mean", "low", "high"].map((name) => line(name, { line_alpha: 0, line_width: 16 }));
  const tooltips = [[say("x.step"), "@x"], [say("band.mean"), "@of_mean"], [say("band.expected"), "@shown"], [say("band.stopped"), "@of_limit"]];
  picture.add_tools(new Bokeh.HoverTool({ renderers: met, tooltips, mode: "mouse", line_policy: "nearest", point_policy: "snap_to_data" }));
}

// What was tried, in no order, and the curve through it; the result was run once more.
function drawPoints(Bokeh, picture, chart, ink, quiet) {
  const tried = chart.series.filter((one) => one.name !== "result");
  const every = tried.flatMap((one) => one.x.map((x, index) => [x, one.y[index]])).sort((a, b) => a[0] - b[0]);
  const source = new Bokeh.ColumnDataSource({ data: { x: every.map(([x]) => x), y: every.map(([, y]) => y) } });
  picture.line({ field: "x" }, { field: "y" }, { source, line_color: quiet, line_width: 1, line_dash: "dotted" });
  return chart.series.map((one, index) => {
    const name = nameOf(chart, one);
    const found = new Bokeh.ColumnDataSource({ data: { x: one.x, y: one.y, name: one.x.map(() => name) } });
    const color = ink[index % ink.length];
    const { marker } = signs[one.name] ?? signs.result;
    return picture.scatter({ field: "x" }, { field: "y" }, { source: found, marker, size: 11, line_color: color, line_width: 2, fill_color: color });
  });
}

// Values that are marked along the axis, each with its name, on the side where there is more room.
function drawLines(Bokeh, picture, chart, text, ground) {
  const lines = chart.lines ?? [];
  const along = (value) => (chart.log_x ? Math.log(value) : value);
  const values = [...chart.series.flatMap((one) => one.x), ...lines.map((one) => one.at)].map(along);
  const middle = (Math.min(...values) + Math.max(...values)) / 2;
  // Unseen points keep them within the axis.
  if (lines.length) picture.scatter(lines.map((one) => one.at), lines.map(() => chart.series[0].y[0]), { alpha: 0 });
  for (const [index, one] of lines.entries()) {
    const isLeft = along(one.at) > middle;
    picture.add_layout(new Bokeh.Span({ location: one.at, dimension: "height", line_color: text, line_dash: "dotted", line_width: 1.5 }));
    // Labels of values that are close stand below each other.
    picture.add_layout(new Bokeh.Label({
      x: one.at, y: 8 + 18 * (lines.length - 1 - index), y_units: "screen", x_offset: isLeft ? -3 : 3, text_align: isLeft ? "right" : "left", text: `${say(`line.${one.name}`)} ${figureOf(one.at)} ms`,
      text_color: text, text_font_size: "11px", background_fill_color: ground, background_fill_alpha: 0.75,
    }));
  }
}

const figureOf = (value) => Number(value.toPrecision(4)).toLocaleString(language === "zh" ? "zh-CN" : "en-US", { maximumFractionDigits: 6 });

async function draw(plot) {
  const entry = drawn.get(plot);
  const { chart } = entry;
  let Bokeh;
  try { Bokeh = await charts(); } catch { plot.textContent = say("noscript"); return; }
  const style = getComputedStyle(root);
  const [text, quiet, line, ground] = ["--text", "--quiet", "--line", "--ground"].map((name) => style.getPropertyValue(name).trim());
  const dark = isDark();
  const ink = inks[dark ? "dark" : "light"];
  const [title, hint] = caption(chart);
  const several = chart.series.length > 1 || chart.points;
  const height = chart.y ? say(`y.${chart.y}`) : unitOf(chart);
  entry.caption.replaceChildren(document.createTextNode(title), element("small", hint), legend(chart, ink, quiet));
  plot.setAttribute("aria-label", title);
  const picture = Bokeh.Plotting.figure({
    height: 230, sizing_mode: "stretch_width", tools: "box_zoom,reset,save", toolbar_location: "above",
    x_axis_label: say(`x.${chart.x}`), y_axis_label: height || null,
    x_axis_type: chart.log_x ? "log" : "auto", y_axis_type: chart.log_y ? "log" : "auto",
    background_fill_alpha: 0, border_fill_alpha: 0, outline_line_color: line,
  });
  // A share is seen against the whole of it, but beside a band, where little counts.
  const most = Math.max(...chart.series.flatMap((one) => one.y));
  const least = Math.min(...chart.series.flatMap((one) => one.y));
  if (chart.unit === "ratio" && most <= 1 && least >= 0 && !chart.band) picture.y_range = new Bokeh.Range1d({ start: 0, end: 1.02 });
  picture.toolbar.logo = null;
  picture.toolbar.autohide = true;
  for (const axis of [...picture.xaxis, ...picture.yaxis]) {
    Object.assign(axis, { axis_label_text_color: quiet, major_label_text_color: quiet, axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null, axis_label_text_font_style: "normal" });
  }
  for (const grid of [...picture.xgrid, ...picture.ygrid]) grid.grid_line_color = line;
  if (chart.band) drawBand(Bokeh, picture, chart.band, quiet);
  const renderers = chart.points ? drawPoints(Bokeh, picture, chart, ink, quiet) : chart.series.map((one, index) => {
    const name = nameOf(chart, one);
    const source = new Bokeh.ColumnDataSource({ data: { x: one.x, y: one.y, name: one.x.map(() => name) } });
    const look = { color: ink[index % ink.length], line_width: 2, line_dash: dashes[index % dashes.length] };
    const drawnLine = picture.line({ field: "x" }, { field: "y" }, { source, ...look });
    const dots = one.x.length <= 60 ? [picture.scatter({ field: "x" }, { field: "y" }, { source, size: 5, color: look.color })] : [];
    if (one.x.length < 2) return dots[0];
    // One curve tells its value wherever the pointer is above or below it; of several, the one that is near it does,
    // for which an unseen line beside it is wide enough to be met.
    return several ? picture.line({ field: "x" }, { field: "y" }, { source, line_alpha: 0, line_width: 16 }) : drawnLine;
  });
  const tooltips = [[say(`x.${chart.x}`), "@x"], [height || say("value"), "@y"]];
  if (several) tooltips.unshift(["", "@name"]);
  picture.add_tools(new Bokeh.HoverTool({ renderers, tooltips, mode: several ? "mouse" : "vline", line_policy: "nearest", point_policy: "snap_to_data" }));
  // Unseen points keep the bounds within the axis.
  if (chart.bounds?.length) picture.scatter(chart.bounds.map(() => chart.series[0].x[0]), chart.bounds, { alpha: 0 });
  for (const bound of chart.bounds ?? []) picture.add_layout(new Bokeh.Span({ location: bound, dimension: "width", line_color: text, line_dash: "dashed", line_width: 1.5 }));
  drawLines(Bokeh, picture, chart, text, ground);
  for (const mark of chart.marks ?? []) picture.add_layout(new Bokeh.Span({ location: mark, dimension: "height", line_color: quiet, line_dash: "dotted" }));
  // A range of one value, such as a constant clock, has no height of its own.
  if (picture.y_range instanceof Bokeh.DataRange1d) picture.y_range.min_interval = 1e-9;
  entry.view?.remove();
  plot.replaceChildren();
  plot.dataset.drawn = dark ? "dark" : "light";
  entry.view = await Bokeh.Plotting.show(picture, plot);
}

function redraw() {
  for (const [plot, entry] of drawn) {
    if (!plot.isConnected) drawn.delete(plot);
    else if (entry.view) draw(plot);
  }
}

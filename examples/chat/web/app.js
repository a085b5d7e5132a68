"use strict";

// The samples of the last half minute. Everything on the page is drawn from them.
const KEEP = 120;
const samples = [];

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function element(parent, name, attributes, text) {
	const e = document.createElementNS(SVG, name);
	for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
	if (text !== undefined) e.textContent = text;
	parent.append(e);
}

// A number for people: two digits that matter, or all of a whole one.
function short(n) {
	if (n >= 10 || Number.isInteger(n)) return String(Math.round(n));
	return n.toFixed(1);
}

// lines draws one polyline a series over the whole width; series are functions of a
// sample.
function lines(id, names, series) {
	const svg = $(id + "-chart");
	svg.replaceChildren();
	const top = Math.max(1, ...samples.flatMap((s) => series.map((f) => f(s))));
	series.forEach((f, i) => {
		// The newest sample is at the right edge.
		const first = KEEP - samples.length;
		const points = samples.map((s, x) => `${((first + x) * 480) / (KEEP - 1)},${118 - (f(s) / top) * 100}`);
		element(svg, "polyline", { class: "s" + i, points: points.join(" ") });
	});
	label(svg, id, names, series.map((f) => f(samples.at(-1))), "");
}

// bars draws one bar a value; top is the least value that fills the height.
function bars(id, values, top, unit) {
	const svg = $(id + "-chart");
	svg.replaceChildren();
	top = Math.max(top, 1, ...values);
	const width = 480 / values.length;
	values.forEach((v, i) => {
		const height = (v / top) * 100;
		element(svg, "rect", { class: "f0", x: i * width + width * 0.15, y: 119 - height, width: width * 0.7, height: height + 1 });
	});
	label(svg, id, values.map((_, i) => "#" + (i + 1)), values, unit);
}

// label writes the legend, and tells a screen reader what the picture shows.
function label(svg, id, names, values, unit) {
	const legend = $(id + "-legend");
	legend.replaceChildren();
	const entries = names.map((name, i) => name + " " + short(values[i]) + unit);
	entries.forEach((text, i) => {
		const entry = document.createElement("b");
		if (svg.querySelector("polyline")) {
			const key = document.createElement("i");
			key.className = "k" + i;
			entry.append(key);
		}
		entry.append(text);
		legend.append(entry);
	});
	svg.setAttribute("aria-label", svg.dataset.label + ": " + entries.join(", "));
}

function draw(s) {
	const number = (id, n) => ($(id + "-number").textContent = short(n));
	number("coalesce", s.coalesce.percent);
	lines("coalesce", ["reads/s", "database/s"], [(x) => x.coalesce.reads, (x) => x.coalesce.queries]);
	number("shard", s.shard.perRead);
	bars("shard", s.shard.rows, 1, "");
	number("outbox", s.outbox.lost);
	lines("outbox", ["waiting", "lost"], [(x) => x.outbox.waiting, (x) => x.outbox.lost]);
	number("ratelimit", s.ratelimit.refused);
	lines("ratelimit", ["offered/s", "stored/s"], [(x) => x.ratelimit.offered, (x) => x.ratelimit.admitted]);
	number("balance", s.balance.p90);
	bars("balance", s.balance.share, 50, " %");

	for (const button of document.querySelectorAll("[data-switch]")) {
		const on = s.switches[button.dataset.switch];
		button.setAttribute("aria-checked", String(on));
		button.closest(".card")?.classList.toggle("off", !on);
	}
	$("rates").textContent = short(s.coalesce.reads) + " reads and " + short(s.ratelimit.offered) + " posts a second";
	document.documentElement.dataset.samples = String(s.seq);
}

for (const button of document.querySelectorAll("[data-switch]")) {
	button.addEventListener("click", () => {
		const on = button.getAttribute("aria-checked") !== "true";
		fetch("switches/" + button.dataset.switch + "?on=" + on, { method: "POST" }).catch(() => {}); // the state says so
	});
}

const events = new EventSource("events");
events.addEventListener("sample", (e) => {
	samples.push(JSON.parse(e.data));
	if (samples.length > KEEP) samples.shift();
	draw(samples.at(-1));
	say("");
});
events.addEventListener("error", () => say("The service is away; trying again…"));

// A screen reader speaks each change of the state, so it changes only with the news.
function say(text) {
	if ($("state").textContent !== text) $("state").textContent = text;
}

import { ask, askJson, follow, NoKey, useKey } from "/page/api.js";
import { showJobs } from "/page/jobs.js";
import { Player } from "/page/player.js";
import { difference, inWords } from "/page/words.js";

const find = (id) => document.getElementById(id);
const NUMBERS = ["width", "height", "num_frames", "num_inference_steps", "seed"];
const player = new Player();
const sides = { A: null, B: null };
let wanted = [];
let known = new Map();
let presented = 0;

async function start() {
  try {
    const model = (await askJson("/v1/models")).data[0];
    find("key-form").hidden = true;
    find("model").textContent = model.id;
    fill(model);
    await listen();
  } catch (error) {
    if (error instanceof NoKey) {
      find("key-form").hidden = false;
      find("key").focus();
    } else {
      find("connection").textContent = "the server is not there; trying again";
      setTimeout(start, 1000);
    }
  }
}

function fill(model) {
  for (const name of NUMBERS) find(name).value = model.defaults[name];
  find("image-field").hidden = !model.takes_image;
  for (const side of ["a", "b"]) {
    options(find(`backend-${side}`), [["", model.default_attention_backend ?? "automatic"], ...model.attention_backends.map((one) => [one, one])]);
    options(find(`policy-${side}`), [["", model.default_cache ?? "none"], ...(model.default_cache ? [["none", "none"]] : []), ...model.cache_policies.map((one) => [one, one])]);
  }
}

function options(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
}

async function listen() {
  for (;;) {
    try {
      find("connection").textContent = "connected";
      await follow("/v1/events", (jobs) => {
        known = new Map(jobs.map((job) => [job.id, job]));
        showJobs(jobs, { show, remove });
        showWanted();
      });
    } catch (error) {
      if (error instanceof NoKey) throw error;
    }
    find("connection").textContent = "the server is not there; trying again";
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function bodyOf(side) {
  const body = { prompt: find("prompt").value };
  for (const name of NUMBERS) body[name] = Number(find(name).value);
  if (find(`backend-${side}`).value) body.attention_backend = find(`backend-${side}`).value;
  const policy = find(`policy-${side}`).value, value = find(`value-${side}`).value.trim();
  if (policy) body.cache = value && policy !== "none" ? `${policy}@${value}` : policy;
  const image = find("image").files[0];
  if (image) body.input_reference = { image_url: await dataUrl(image) };
  return JSON.stringify(body);
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("the image cannot be read"));
    reader.readAsDataURL(file);
  });
}

async function make(event) {
  event.preventDefault();
  find("problem").textContent = "";
  find("submit").disabled = true;
  const made = [];
  try {
    for (const side of find("compare").checked ? ["a", "b"] : ["a"]) {
      const headers = { "Content-Type": "application/json" };
      made.push((await askJson("/v1/videos", { method: "POST", headers, body: await bodyOf(side) })).id);
    }
    wanted = made;
  } catch (error) {
    find("problem").textContent = error.message;
    await Promise.all(made.map(remove));
  } finally {
    find("submit").disabled = false;
  }
}

// What was asked for last is shown when all of it is done.
function showWanted() {
  if (!wanted.length || !wanted.every((id) => known.get(id)?.status === "completed")) return;
  const [a, b = null] = wanted;
  wanted = [];
  sides.A = a;
  sides.B = b;
  present();
}

function show(id, side) {
  sides[side] = id;
  if (!sides.A) { sides.A = id; sides.B = null; }
  present();
}

async function remove(id) {
  try {
    await ask(`/v1/videos/${id}`, { method: "DELETE" });
  } catch (error) {
    find("problem").textContent = error.message;
  }
}

async function present() {
  const ids = [sides.A, sides.B].filter(Boolean);
  const mine = ++presented;  // what is asked for meanwhile counts, whichever comes first
  try {
    const receipts = await Promise.all(ids.map((id) => askJson(`/v1/videos/${id}/receipt`)));
    const blobs = await Promise.all(ids.map(async (id) => (await ask(`/v1/videos/${id}/content`)).blob()));
    if (mine !== presented) return;
    find("viewer").hidden = false;
    find("caption-a").textContent = (ids.length === 2 ? "A. " : "") + inWords(receipts[0]);
    find("caption-b").textContent = ids.length === 2 ? "B. " + inWords(receipts[1]) : "";
    find("difference").textContent = ids.length === 2 ? difference(...receipts) : "";
    find("video-a").setAttribute("aria-label", receipts[0].prompt);
    find("video-b").setAttribute("aria-label", receipts.at(-1).prompt);
    await player.show(blobs.map((blob) => URL.createObjectURL(blob)));
  } catch (error) {
    if (mine !== presented) return;
    find("problem").textContent = error.message;
    sides.A = sides.B = null;
  }
}

find("make").addEventListener("submit", make);
find("compare").addEventListener("change", (event) => {
  find("settings-b").hidden = !event.target.checked;
  document.body.classList.toggle("two", event.target.checked);
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value);
  start();
});
start();

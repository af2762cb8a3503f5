// The list of videos: made once for each, and changed in place, so that the focus stays where it is.
const find = (id) => document.getElementById(id);
const items = new Map();

export function showJobs(jobs, actions) {
  const list = find("jobs");
  find("empty").hidden = jobs.length > 0;
  const there = new Set(jobs.map((job) => job.id));
  for (const [id, item] of items) {
    if (!there.has(id)) { item.node.remove(); items.delete(id); }
  }
  for (const job of [...jobs].reverse()) {
    if (!items.has(job.id)) {
      items.set(job.id, makeItem(job, actions));
      list.prepend(items.get(job.id).node);
    }
    update(items.get(job.id), job);
  }
}

function makeItem(job, actions) {
  const node = document.createElement("li");
  node.dataset.id = job.id;
  const prompt = add(node, "p", "prompt", job.prompt);
  const about = add(node, "p", "about");
  const state = add(node, "p", "state");
  const bar = add(node, "progress");
  bar.max = 100;
  bar.setAttribute("aria-label", `Progress of ${job.prompt}`);
  const buttons = add(node, "div", "buttons");
  const show = ["A", "B"].map((side) => button(buttons, `Show as ${side}`, job, () => actions.show(job.id, side)));
  const remove = button(buttons, "Cancel", job, () => actions.remove(job.id));
  return { node, prompt, about, state, bar, show, remove };
}

function update(item, job) {
  const ended = job.status === "completed" || job.status === "failed";
  item.node.dataset.status = job.status;
  item.about.textContent = [
    `${job.num_frames} frames of ${job.size}`, `${job.num_inference_steps} steps`, `seed ${job.seed}`,
    job.attention_backend ?? "automatic backend", job.cache ? `cache ${job.cache}` : "no cache",
  ].join(", ");
  item.state.textContent = stateOf(job);
  item.state.classList.toggle("failed", job.status === "failed");
  item.bar.hidden = ended;
  item.bar.value = job.progress;
  for (const one of item.show) one.hidden = job.status !== "completed";
  const word = ended ? "Delete" : "Cancel";
  if (item.remove.textContent !== word) {
    item.remove.textContent = word;
    item.remove.setAttribute("aria-label", `${word}: ${job.prompt}`);
  }
}

function stateOf(job) {
  if (job.status === "queued") return job.queue_position === 1 ? "next in the queue" : `number ${job.queue_position} in the queue`;
  if (job.status === "failed") return `failed: ${job.error?.message}`;
  if (job.status === "completed") return "done";
  if (job.phase === "text") return "reading the prompt";
  return job.phase === "decode" ? "decoding" : `step ${job.steps_done} of ${job.num_steps}`;
}

function button(parent, text, job, act) {
  const made = add(parent, "button", "", text);
  made.type = "button";
  made.setAttribute("aria-label", `${text}: ${job.prompt}`);
  made.addEventListener("click", act);
  return made;
}

function add(parent, tag, name = "", text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  parent.append(made);
  return made;
}

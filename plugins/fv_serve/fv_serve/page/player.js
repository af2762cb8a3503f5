// One video, or two in step: the first leads, the second is put where the first is whenever it strays.
const STRAY = 0.03;
const find = (id) => document.getElementById(id);

export class Player {
  constructor() {
    this.videos = [find("video-a"), find("video-b")];
    this.two = false;
    this.lead = this.videos[0];
    find("play").addEventListener("click", () => (this.lead.paused ? this.play() : this.pause()));
    find("time").addEventListener("input", (event) => {
      this.pause();
      for (const video of this.shown()) video.currentTime = Number(event.target.value) * this.length();
    });
    this.lead.addEventListener("ended", () => this.play(0));
    const tick = () => { this.keepInStep(); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  shown() { return this.two ? this.videos : [this.lead]; }

  length() { return this.lead.duration || 1; }

  async show(urls) {
    this.pause();
    this.two = urls.length === 2;
    find("figure-b").hidden = !this.two;
    await Promise.all(urls.map((url, number) => load(this.videos[number], url)));
    if (!this.two) unload(this.videos[1]);
    this.play(0);
  }

  play(from) {
    for (const video of this.shown()) {
      if (from !== undefined) video.currentTime = from;
      video.play().catch(() => {});
    }
    find("play").textContent = "Pause";
  }

  pause() {
    for (const video of this.videos) video.pause();
    find("play").textContent = "Play";
  }

  keepInStep() {
    const lead = this.lead, other = this.videos[1];
    if (!lead.duration) return;
    if (this.two && !other.seeking && Math.abs(other.currentTime - lead.currentTime) > STRAY) other.currentTime = lead.currentTime;
    if (!lead.paused) find("time").value = lead.currentTime / this.length();
    find("clock").textContent = `${lead.currentTime.toFixed(2)} s`;
  }
}

function unload(video) {
  const before = video.src;
  if (!before) return;
  video.removeAttribute("src");
  video.load();
  URL.revokeObjectURL(before);
}

function load(video, url) {
  return new Promise((done, failed) => {
    const before = video.src;
    video.onloadeddata = done;
    video.onerror = () => failed(new Error("this browser cannot play the video"));
    video.src = url;
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);  // not sooner: it may still be loading
  });
}

// A receipt in words, and what two of them differ in.
const ROLES = { SELF: "Self attention", CROSS: "Cross attention", JOINT: "Joint attention", AUDIO: "Audio attention" };
const PHASES = { text: "text", denoise: "denoising", decode: "decoding", encode: "writing" };

const sum = (counts) => Object.values(counts).reduce((total, one) => total + one, 0);
const seconds = (value) => `${value.toFixed(2)} s`;

export function inWords(receipt) {
  const skipped = sum(receipt.steps_skipped);
  const passes = skipped + sum(receipt.steps_computed);
  const lines = [];
  const given = receipt.cache ? Object.entries(receipt.cache.settings).filter(([, value]) => !Array.isArray(value)) : [];
  const settings = given.map(([name, value]) => `${name} ${value}`);
  lines.push(
    skipped
      ? `${skipped} of ${passes} passes were skipped by ${receipt.cache.policy}${settings.length ? ` (${settings.join(", ")})` : ""}.`
      : `All ${passes} passes were computed${receipt.cache ? `; ${receipt.cache.policy} skipped none` : ""}.`,
  );
  for (const [role, served] of Object.entries(receipt.attention)) {
    lines.push(`${ROLES[role] ?? role} by ${served.backend} (${served.version}), ${served.calls} calls.`);
  }
  const times = Object.entries(PHASES).filter(([name]) => name in receipt.seconds);
  lines.push(`Seconds: ${times.map(([name, word]) => `${word} ${receipt.seconds[name].toFixed(2)}`).join(", ")}; on ${receipt.device} in ${receipt.dtype}.`);
  lines.push(`${receipt.num_frames} frames of ${receipt.width}x${receipt.height}, ${receipt.num_inference_steps} steps, seed ${receipt.seed}.`);
  return lines.join("\n");
}

export function difference(a, b) {
  const ratio = a.seconds.denoise / b.seconds.denoise;
  const faster = ratio >= 1 ? `B denoised ${ratio.toFixed(2)} times as fast as A` : `A denoised ${(1 / ratio).toFixed(2)} times as fast as B`;
  const same = ["prompt", "seed", "width", "height", "num_frames", "num_inference_steps"].filter((name) => a[name] !== b[name]);
  return `${faster} (${seconds(a.seconds.denoise)} and ${seconds(b.seconds.denoise)}).${same.length ? ` They also differ in ${same.join(", ")}.` : ""}`;
}

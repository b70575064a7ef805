// The service as the page uses it: its schema, its models, and one stream of events for many clips.
const KEY = "musicgen-key"; // in this tab alone

export class Refused extends Error {
  constructor(status, { detail, field }) {
    super(detail ?? `The service answered ${status}.`);
    Object.assign(this, { status, field });
  }
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = {
    ...(options.body && { "Content-Type": options.body.type || "application/json" }),
    ...(key && { Authorization: `Bearer ${key}` }),
  };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export const get = async (path) => (await call(path)).json();
export const post = async (path, body) =>
  (await call(path, { method: "POST", body: JSON.stringify(body) })).json();

/** Send a sound file that clips begin with. */
export const sendSound = async (file) =>
  (await call("sources", { method: "POST", body: file.slice(0, file.size, "application/octet-stream") })).json();

/** Ask for clips; `onEvent` gets every event. Resolves when all have ended. */
export async function make(requests, onEvent, signal) {
  const answer = await call("live/clips", { method: "POST", body: JSON.stringify(requests), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", ended = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      ended ||= event.type === "end";
      onEvent(event);
    }
  }
  if (!ended) throw new TypeError("the connection ended early");
}

export const cancel = (stream, cell) =>
  call(`live/clips/${stream}/${cell}`, { method: "DELETE" }).catch(() => {});

/** The 16-bit samples of an event. */
export function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}

// The service as the page uses it: its schema, its models, and one stream of events for many clips.
const KEY = "musicgen-key"; // in this tab alone

export class Refused extends Error {
  constructor(status, { detail, field }) {
    super(detail ?? `The service answered ${status}.`);
    Object.assign(this, { status, field });
  }
}

class Unreachable extends Error {
  constructor(cause) {
    super("The service cannot be reached. What was made stays here; when it runs again, press Make for the rest.", { cause });
  }
}

/** What to tell a person of an error; one of the page itself is in the console too. */
export function reasonOf(error) {
  if (error instanceof Refused || error instanceof Unreachable) return error.message;
  console.error(error);
  return `The page failed: ${error.message}`;
}

/** Let a connection that fails be told from a fault of the page. */
const reached = (promise) => promise.catch((error) => { throw error.name === "AbortError" ? error : new Unreachable(error); });

export const useKey = (key) => sessionStorage.setItem(KEY, key);

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = {
    ...(options.body && { "Content-Type": options.body.type || "application/json" }),
    ...(key && { Authorization: `Bearer ${key}` }),
  };
  const answer = await reached(fetch(path, { ...options, headers, cache: "no-store" }));
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export const get = async (path) => (await call(path)).json();
export const post = async (path, body) =>
  (await call(path, { method: "POST", body: JSON.stringify(body) })).json();

/** Send a sound file that clips begin with. */
export const sendSound = async (file) =>
  (await call("sources", { method: "POST", body: file.slice(0, file.size, "application/octet-stream") })).json();

/** Requests as the service takes them: what they have in common, and the rest of each. */
export function requestsOf(cells) {
  const [first, ...others] = cells;
  const isCommon = ([name, value]) => others.every((fields) => fields[name] === value);
  const fields = Object.fromEntries(Object.entries(first).filter(isCommon));
  return {
    fields,
    cells: cells.map((cell) => Object.fromEntries(Object.entries(cell).filter(([name]) => !(name in fields)))),
  };
}

/** Ask for clips; `onEvent` gets every event. Resolves when all have ended. */
export async function make(requests, onEvent, signal) {
  const answer = await call("live/clips", { method: "POST", body: JSON.stringify(requests), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", ended = false;
  for (;;) {
    const { value, done } = await reached(reader.read());
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      ended ||= event.type === "end";
      onEvent(event);
    }
  }
  if (!ended) throw new Unreachable(); // the connection ended early
}

export const cancel = (stream, cell) =>
  call(`live/clips/${stream}/${cell}`, { method: "DELETE" }).catch(() => {});

/** The 16-bit samples of an event. */
export function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}

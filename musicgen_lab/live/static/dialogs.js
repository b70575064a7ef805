// The dialogs of the page: the fields of one clip, and how a blind test is to be.
import { $, element } from "./dom.js";
import { Knobs } from "./knobs.js";
import { post, reasonOf, requestsOf } from "./service.js";

/** Open a dialog. `submit` returns what to do once it is closed, or throws what is wrong. */
function ask(dialog, submit, blame = () => {}) {
  const form = dialog.querySelector("form"), problem = form.querySelector(".problem");
  const start = form.querySelector(".primary"), closed = new AbortController(), { signal } = closed;
  problem.textContent = "";
  start.disabled = false;
  blame("");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    start.disabled = true;
    problem.textContent = "";
    blame("");
    try {
      const finish = await submit();
      if (signal.aborted) return;
      dialog.close();
      finish?.();
    } catch (error) {
      problem.textContent = reasonOf(error);
      blame(error.field);
    } finally {
      start.disabled = false;
    }
  }, { signal });
  form.querySelector(".cancel").addEventListener("click", () => dialog.close(), { signal });
  dialog.addEventListener("close", () => closed.abort(), { signal });
  dialog.showModal();
}

/** Ask for the fields that one clip is to have; `take` gets them when the service can make it. */
export function askForFields(cell, { schema, models }, take) {
  const dialog = $("change"), root = element("div");
  dialog.querySelector(".fields").replaceChildren(root);
  const knobs = new Knobs(root, schema, models, "own-");
  $("change-title").textContent = `Change ${cell.wanted.name}`;
  knobs.fields = cell.fields;
  const start = dialog.querySelector(".primary"), problem = dialog.querySelector(".problem");
  const closed = new AbortController(), { signal } = closed; // a sound may be on its way then
  knobs.addEventListener("change", () => { start.disabled = knobs.isSending; }, { signal });
  knobs.addEventListener("refused", ({ detail }) => {
    start.disabled = false;
    problem.textContent = reasonOf(detail);
  }, { signal });
  ask(dialog, async () => {
    const { fields } = knobs;
    await post("live/plan", requestsOf([fields]));
    return () => take(fields);
  }, (field) => knobs.blame(field));
  dialog.addEventListener("close", () => {
    closed.abort();
    root.remove(); // so that there is one set of labels
  }, { once: true });
}

// Clips that are kept: as a run folder of the service, with its report, or as a zip file.
import { $, element, plural } from "./dom.js";
import { get, post, requestsOf } from "./service.js";

const link = (text, href) => Object.assign(element("a", "", text), { href });

const inNewTab = (text, href) => Object.assign(link(text, href), { target: "_blank" });

const code = (name, text) => {
  const made = element("pre", "", text);
  Object.assign(made, { tabIndex: 0, ariaLabel: name, role: "region" });
  return made;
};

export class Kept {
  #last = {}; // what was stored last, and as what

  /** `inFolders` is whether the service keeps folders; `complain` gets what goes wrong. */
  constructor(inFolders, complain) {
    Object.assign(this, { inFolders, complain });
    $("keep-clips").addEventListener("click", () => this.#keep());
    $("listen-blind").addEventListener("click", () => this.#listen());
    $("listen-blind").hidden = !inFolders;
    for (const name of ["focus", "visibilitychange"]) addEventListener(name, () => this.#dropEnded());
  }

  /** Show that these requests can be kept; nothing as long as no clip is there at all. */
  offer(requests, isAnyMade) {
    this.requests = requests;
    $("keep").hidden = !isAnyMade;
    for (const id of ["keep-clips", "listen-blind"]) $(id).disabled = !requests.length || this.isBusy;
    $("keep-clips").textContent = `${this.inFolders ? "Keep" : "Download"} ${plural(requests.length, "clip")}`;
  }

  async #keep() {
    try {
      const run = await this.#store();
      if (!this.inFolders) $("kept").querySelector("a[download]").click();
      return run;
    } catch (error) { this.complain(error); }
  }

  /** Store the clips, unless their folder is the last that was made, and say where they are. */
  async #store() {
    const { requests } = this, key = JSON.stringify(requests);
    this.isBusy = true;
    this.offer(requests, true);
    try {
      await this.#dropEnded();
      if (this.inFolders && this.#last.key === key) return this.#last.run;
      const run = await post("live/kept", requestsOf(requests));
      this.#last = { key, run };
      this.#show(run);
      return run;
    } finally {
      this.isBusy = false;
      this.offer(this.requests, true);
    }
  }

  #show(run) {
    const zip = Object.assign(link(this.inFolders ? "download it as a zip file" : "Download it again", run.zip), { download: "" });
    const blind = inNewTab("Listen to it blind", run.blind);
    const report = element("span", "", "The report is being made.");
    $("kept").replaceChildren(
      element("p", "", this.inFolders
        ? ["Kept in ", element("code", "", run.folder), ". ", element("span", "links", [report, " ", blind, ", or ", zip, "."])]
        : ["Downloaded as ", element("code", "", `${run.folder}.zip`), ", a run folder. ", element("span", "links", [zip, "."])]),
      element("p", "", "To make the same clips again:"),
      ...(run.command ? [code("Command", run.command)] : []), code("Python", run.python),
    );
    if (this.inFolders) this.#watchReport(run, report);
  }

  /** Take the links away if the service has been restarted: it knows them as long as it runs. */
  async #dropEnded() {
    const { run } = this.#last;
    const about = run && await get("live/about").catch(() => undefined); // it may come back
    if (!about || about.instance === run.instance || this.#last.run !== run) return;
    this.#last = {};
    $("kept").querySelector(".links").textContent = "The service has been restarted since, so its links no longer work.";
  }

  async #watchReport(run, place) {
    const { report, detail } = await get(run.state).catch(({ message }) => ({ report: "failed", detail: message }));
    if (report === "making") await this.#watchReport(run, place); // it was waited for a while
    else place.replaceChildren(report === "made" ? inNewTab("Open the report", run.report) : `There is no report: ${detail.replace(/\.$/, "")}`, ".");
  }

  /** Open a blind test of the clips in a new tab. */
  async #listen() {
    const tab = open("", "_blank"); // at once: later, it would be blocked
    try {
      const { blind } = await this.#store();
      if (tab) tab.location = new URL(blind, location);
    } catch (error) {
      tab?.close();
      this.complain(error);
    }
  }
}

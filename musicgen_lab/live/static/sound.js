// A sound that can be played while it is being made. It has those properties and events of an
// <audio> that the player uses; its samples come in parts.
const PEAKS_PER_S = 50;
let context;

export class GrowingSound extends EventTarget {
  paused = true;
  ended = false;
  complete = false;
  volume = 1;
  muted = false;
  playbackRate = 1;
  seeking = false;
  readyState = 4;
  src = "";
  currentSrc = "";
  samples = new Int16Array(0); // of all channels, interleaved
  channels = 1;
  sampleRate = 0;
  peaks = [];
  #length = 0; // frames of samples that are there
  #at = 0; // where it is paused, or was when it was started, in seconds
  #started = 0; // when that was, by the clock of the context
  #scheduled = 0; // frames that were handed to the context
  #nodes = new Set();
  #gain = 1;

  get duration() { return this.sampleRate ? this.#length / this.sampleRate : 0; }

  get currentTime() {
    const passed = this.paused ? 0 : Math.max(0, context.currentTime - this.#started);
    return Math.min(this.#at + passed, this.duration);
  }

  set currentTime(at) {
    const playing = !this.paused;
    this.#silence();
    this.ended = false;
    this.#at = Math.max(0, Math.min(at, this.duration));
    if (playing) this.#start();
    this.#tell("seeking", "timeupdate");
  }

  get gainDb() { return 20 * Math.log10(this.#gain); }

  set gain(factor) {
    this.#gain = factor;
    for (const { gain } of this.#nodes) gain.gain.value = factor;
  }

  /** Add samples: 16-bit integers of all channels, interleaved. */
  add(samples, sampleRate, channels, expectedFrames) {
    const needed = Math.max((this.#length * channels) + samples.length, expectedFrames * channels);
    if (this.samples.length < needed) {
      const larger = new Int16Array(needed);
      larger.set(this.samples.subarray(0, this.#length * channels));
      this.samples = larger;
    }
    this.samples.set(samples, this.#length * channels);
    const starved = !this.paused && this.currentTime >= this.duration;
    if (starved) this.#at = this.currentTime;
    Object.assign(this, { sampleRate, channels });
    this.#length += samples.length / channels;
    this.#addPeaks();
    if (starved) this.#start();
    else if (!this.paused) this.#schedule();
    this.#tell("durationchange");
  }

  async play() {
    context ??= new AudioContext();
    await context.resume();
    if (this.ended) this.#at = 0;
    this.ended = false;
    if (!this.paused) return;
    this.paused = false;
    this.#start();
    this.#tell("play");
    this.#tick();
  }

  pause() {
    if (this.paused) return;
    this.#at = this.currentTime;
    this.#silence();
    this.paused = true;
    this.#tell("pause", "timeupdate");
  }

  /** The samples of one channel or their mean, from one frame to another; zeros where there are none. */
  mono(from, to, into) {
    into.fill(0);
    const { samples, channels } = this, end = Math.min(to, this.#length);
    for (let frame = Math.max(0, from); frame < end; frame++) {
      let sum = 0;
      for (let channel = 0; channel < channels; channel++) sum += samples[frame * channels + channel];
      into[frame - from] = sum / channels / 32768;
    }
  }

  #start() {
    this.#started = context.currentTime + 0.02;
    this.#scheduled = Math.round(this.#at * this.sampleRate);
    this.#schedule();
  }

  #schedule() {
    const frames = this.#length - this.#scheduled;
    if (frames <= 0) return;
    const { channels } = this, buffer = context.createBuffer(channels, frames, this.sampleRate);
    for (let channel = 0; channel < channels; channel++) {
      const into = buffer.getChannelData(channel);
      for (let frame = 0; frame < frames; frame++)
        into[frame] = this.samples[(this.#scheduled + frame) * channels + channel] / 32768;
    }
    const source = context.createBufferSource(), gain = context.createGain();
    gain.gain.value = this.#gain;
    source.buffer = buffer;
    source.connect(gain).connect(context.destination);
    source.start(this.#started + this.#scheduled / this.sampleRate - this.#at);
    const node = { source, gain };
    this.#nodes.add(node);
    source.onended = () => this.#nodes.delete(node);
    this.#scheduled = this.#length;
  }

  #silence() {
    for (const { source } of this.#nodes) source.stop();
    this.#nodes.clear();
  }

  #tick() {
    if (this.paused) return;
    if (this.complete && this.currentTime >= this.duration) {
      this.#silence();
      this.#at = this.duration;
      Object.assign(this, { paused: true, ended: true });
      this.#tell("timeupdate", "pause", "ended");
      return;
    }
    this.#tell("timeupdate");
    setTimeout(() => this.#tick(), 50);
  }

  #addPeaks() {
    const block = Math.max(1, Math.round(this.sampleRate / PEAKS_PER_S)) * this.channels;
    const whole = Math.floor((this.#length * this.channels) / block);
    for (let number = this.peaks.length; number < whole; number++) {
      let peak = 0;
      for (let i = number * block; i < (number + 1) * block; i++)
        peak = Math.max(peak, Math.abs(this.samples[i]));
      this.peaks.push(peak / 32768);
    }
  }

  #tell(...events) {
    for (const name of events) this.dispatchEvent(new Event(name));
  }
}

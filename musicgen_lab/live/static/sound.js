// A sound that can be played while it is being made. It has those properties and events of an
// <audio> that the player uses; its samples come in parts.
const PEAKS_PER_S = 50;
const LEAD_S = 0.03; // from now until what is handed to the context is due
const AHEAD_S = 2; // of sound that is waited for when there was too little of it
const contexts = new Map(); // by sample rate: parts that were resampled one by one would not join

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
  isSlow = false; // it arrives slower than it plays
  #length = 0; // frames of samples that are there
  #from = 0; // the frame where it is paused or was started
  #startedAt = null; // when that was, in frames of the context; null while nothing plays
  #scheduled = 0; // the frame up to which it was handed to the context
  #sources = new Set();
  #out; // the node whose gain is heard
  #gain = 1;

  get duration() { return this.sampleRate ? this.#length / this.sampleRate : 0; }

  get currentTime() { return this.sampleRate ? this.#at / this.sampleRate : 0; }

  set currentTime(seconds) {
    this.#silence();
    this.ended = false;
    this.#from = Math.max(0, Math.min(Math.round(seconds * this.sampleRate), this.#length));
    if (!this.paused && this.sampleRate) this.#start();
    this.#tell("seeking", "timeupdate");
  }

  get gainDb() { return 20 * Math.log10(this.#gain); }

  set gain(factor) {
    this.#gain = factor;
    if (this.#out) this.#out.gain.value = factor;
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
    Object.assign(this, { sampleRate, channels });
    this.#length += samples.length / channels;
    this.#addPeaks();
    this.#goOn();
    this.#tell("durationchange");
  }

  /** There will be no more samples. */
  end() {
    this.complete = true;
    this.#goOn();
  }

  async play() {
    if (!this.paused) return;
    if (this.ended) this.#from = 0;
    Object.assign(this, { paused: false, ended: false });
    this.#tell("play");
    if (this.sampleRate) this.#start();
    this.#tick();
  }

  pause() {
    if (this.paused) return;
    this.#silence();
    Object.assign(this, { paused: true, isSlow: false });
    this.#tell("pause", "timeupdate", "playing");
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

  get #context() {
    if (!contexts.has(this.sampleRate)) contexts.set(this.sampleRate, new AudioContext({ sampleRate: this.sampleRate }));
    return contexts.get(this.sampleRate);
  }

  /** The frame that is heard now. */
  get #at() {
    if (this.#startedAt === null) return this.#from;
    const passed = this.#context.currentTime * this.sampleRate - this.#startedAt;
    return Math.min(this.#from + Math.max(0, Math.round(passed)), this.#length);
  }

  #start() {
    const context = this.#context;
    context.resume();
    this.#startedAt = Math.ceil((context.currentTime + LEAD_S) * this.sampleRate);
    this.#scheduled = this.#from;
    this.#schedule();
  }

  /** Play what has been added, unless so little of it is there that it would be heard in pieces. */
  #goOn() {
    if (this.paused) return;
    if (this.#startedAt === null) {
      const isEnough = (this.#length - this.#from) / this.sampleRate >= AHEAD_S;
      if (this.isSlow && !isEnough && !this.complete) return;
      this.#start();
      if (this.isSlow) this.#tell("playing");
    } else if (this.#scheduled < this.#length) {
      if (this.#isDry) this.#wait();
      else this.#schedule();
    }
  }

  /** Whether what was handed to the context is over, or too nearly so for more to join it. */
  get #isDry() { return this.#scheduled - this.#at < LEAD_S * this.sampleRate; }

  /** Stop until more of the sound is there. */
  #wait() {
    this.#silence();
    this.isSlow = true;
    this.#tell("waiting");
    this.#goOn();
  }

  #schedule() {
    const frames = this.#length - this.#scheduled;
    if (!frames) return;
    const { channels } = this, context = this.#context;
    const buffer = context.createBuffer(channels, frames, this.sampleRate);
    for (let channel = 0; channel < channels; channel++) {
      const into = buffer.getChannelData(channel);
      for (let frame = 0; frame < frames; frame++)
        into[frame] = this.samples[(this.#scheduled + frame) * channels + channel] / 32768;
    }
    if (!this.#out) {
      this.#out = new GainNode(context, { gain: this.#gain });
      this.#out.connect(context.destination);
    }
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#out);
    source.start((this.#startedAt + this.#scheduled - this.#from) / this.sampleRate);
    this.#sources.add(source);
    source.onended = () => this.#sources.delete(source);
    this.#scheduled = this.#length;
  }

  #silence() {
    this.#from = this.#at;
    this.#startedAt = null;
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
  }

  #tick() {
    if (this.paused) return;
    if (this.complete && this.#at >= this.#length) {
      this.#silence();
      Object.assign(this, { paused: true, ended: true, isSlow: false });
      this.#tell("timeupdate", "pause", "ended");
      return;
    }
    if (!this.complete && this.#startedAt !== null && this.#isDry) this.#wait();
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
